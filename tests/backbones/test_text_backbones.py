"""Text encoders and their tokenizers against transformers, and our small encoder for tests."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.prompted import TokenTransformer
from helpers.tiny_backbones import BEHIND, TEXT, TOKENS, WORDS, tiny_tokenizer, write_tiny
from helpers.tiny_bert import write_random_bert
from torch import Tensor

from mmembed.backbones import text
from mmembed.backbones.pretrained import build_encoder, digest, load_pretrained
from mmembed.backbones.text import TextEncoder, TextTokenizer, token_types
from mmembed.batch import Packed
from mmembed.errors import CorruptError, UsageError
from mmembed.features.prompt import emotion_prompt, masked_prompt
from mmembed.methods.demux import Demux, DemuxConfig

tokenizers = pytest.importorskip("tokenizers")
transformers = pytest.importorskip("transformers")
POSITIONS = 24
LINES = (*WORDS, "", "WHAT?!", "  so,  Hope ", "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{SNOWMAN}")
ALL = pytest.mark.parametrize("kind", TEXT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: write_tiny(tmp_path_factory.mktemp(kind), kind) for kind in TEXT}


def loaded(folder: Path, **settings: Any) -> tuple[TextEncoder, TextTokenizer]:
    found = load_pretrained(str(folder), "text", **settings)
    assert isinstance(found.encoder, TextEncoder) and found.tokenizer is not None
    return found.encoder, found.tokenizer


def some_ids(length: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.randint(5, 80, (length,))


@torch.no_grad()
@ALL
def test_layers_are_those_of_each_text_alone(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else is in the batch; what is longer than the model reads, in pieces."""
    monkeypatch.setattr(text, "TOKENS", 60)  # several batches, of several texts each
    encoder, _ = loaded(folders[kind])
    theirs = transformers.AutoModel.from_pretrained(folders[kind]).eval()
    assert encoder.positions == POSITIONS and len(encoder.blocks) == 3
    lengths = (7, 0, POSITIONS, 1, 2 * POSITIONS + 5, 8, 6)
    items = [some_ids(length, seed) for seed, length in enumerate(lengths)]
    layers = encoder(Packed.concatenate(items))
    alone = [encoder(Packed.concatenate([item])) for item in items]
    assert len(layers) == 4
    for number, layer in enumerate(layers):
        assert layer.lengths.tolist() == list(lengths) == encoder.steps(layer.lengths).tolist()
        for item, together, apart in zip(items, layer.split(), alone, strict=True):
            torch.testing.assert_close(together, apart[number].values, atol=1e-5, rtol=0)
            for start in range(0, len(item), POSITIONS):
                piece = slice(start, start + POSITIONS)
                states = theirs(item[None, piece], output_hidden_states=True).hidden_states
                torch.testing.assert_close(together[piece], states[number][0], atol=1e-5, rtol=0)


@ALL
def test_all_weights_learn_and_the_config_makes_the_same_encoder(
    kind: str, folders: dict[str, Path]
) -> None:
    encoder, tokenizer = loaded(folders[kind])
    layers = encoder(Packed.concatenate([some_ids(9, 0), some_ids(4, 1)]))
    sum(layer.values.square().sum() for layer in layers).backward()  # type: ignore[union-attr]
    assert all(weight.grad is not None for weight in encoder.parameters())
    again = build_encoder(encoder.config)
    again.load_state_dict(encoder.state_dict())
    assert digest(again, tokenizer) == digest(encoder, tokenizer)


@ALL
def test_tokens_are_those_of_transformers(kind: str, folders: dict[str, Path]) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(folders[kind])
    _, tokenizer = loaded(folders[kind])
    again = TextTokenizer.from_bytes(tokenizer.to_bytes())
    assert len(again) == len(tokenizer) == len(theirs)
    theirs.backend_tokenizer.no_truncation()
    theirs.backend_tokenizer.no_padding()
    for line in LINES:
        encoded = theirs(line, return_offsets_mapping=True)
        spans = tokenizer.encode_spans(line)
        if len(spans) <= POSITIONS:
            assert [token for token, _, _ in spans] == encoded["input_ids"]
            assert [tuple(span) for _, *span in spans] == encoded["offset_mapping"]
        assert again.encode_spans(line) == spans
        assert tokenizer.encode(line) == [token for token, _, _ in spans]


@ALL
def test_a_long_text_is_cut_into_pieces_with_special_tokens(
    kind: str, folders: dict[str, Path]
) -> None:
    _, tokenizer = loaded(folders[kind])
    line = " and ".join(WORDS)
    spans = tokenizer.encode_spans(line)
    assert len(spans) > 2 * POSITIONS
    begin, end = tokenizer.encode("")
    for start in range(0, len(spans), POSITIONS):
        piece = spans[start : start + POSITIONS]
        assert piece[0] == (begin, 0, 0) and piece[-1] == (end, 0, 0)
        assert all(stop >= first for _, first, stop in piece[1:-1])
    covered = {place for _, first, stop in spans for place in range(first, stop)}
    assert covered >= {place for place, letter in enumerate(line) if letter != " "}


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "mpnet"])
def test_prompts_are_cut_as_transformers_cuts_them(kind: str, folders: dict[str, Path]) -> None:
    _, tokenizer = loaded(folders[kind])
    theirs = transformers.AutoTokenizer.from_pretrained(folders[kind])
    emotions = ("joy", "hope or optimism")
    first = "joy hope or optimism"
    for line in WORDS[:2]:
        whole = theirs(first, text_pair=line, truncation="only_second", max_length=POSITIONS)
        length = len(whole["input_ids"]) - 3
        cut = theirs(first, text_pair=line, truncation="only_second", max_length=length)
        prompt = emotion_prompt(emotions, line, tokenizer, length)
        assert prompt.ids.tolist() == cut["input_ids"]
        for number, word in enumerate(("joy", "hope", "optimism")):
            mine = prompt.ids[prompt.token_label == number]
            assert re.sub("[# \N{LOWER ONE EIGHTH BLOCK}]", "", theirs.decode(mine)) == word
    masked = masked_prompt("today", tokenizer)
    assert masked.ids[masked.token_label == 0].tolist() == [theirs.mask_token_id]


def test_segments_by_hand_and_as_transformers_gives_them(folders: dict[str, Path]) -> None:
    ids = torch.tensor([[0, 5, 6, 1, 5, 1, 7], [0, 5, 1, 7, 7, 7, 7]])
    expected = [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    assert token_types(ids, 1).tolist() == expected
    encoder, tokenizer = loaded(folders["bert"])
    theirs = transformers.AutoModel.from_pretrained(folders["bert"]).eval()
    pair = torch.tensor(tokenizer.tokenize("joy", "hope", POSITIONS).ids)
    types = token_types(pair[None], tokenizer.separator)
    assert 0 < int(types.sum()) < len(pair)
    with torch.no_grad():
        for separator, given in ((tokenizer.separator, types), (None, torch.zeros_like(types))):
            encoder.separator = separator
            states = theirs(pair[None], token_type_ids=given).last_hidden_state[0]
            ours = encoder(Packed.concatenate([pair]))[-1].values
            torch.testing.assert_close(ours, states, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet"])
def test_the_masked_language_head(kind: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    whole = {
        "bert": "BertForMaskedLM",
        "roberta": "RobertaForMaskedLM",
        "mpnet": "MPNetForMaskedLM",
    }
    module = getattr(transformers, whole[kind])
    torch.manual_seed(0)
    theirs = module(module.config_class(**(TOKENS if kind == "bert" else BEHIND))).eval()
    theirs.save_pretrained(tmp_path)
    tiny_tokenizer(kind).save_pretrained(tmp_path)
    encoder, _ = loaded(tmp_path, masked_language=True)
    ids = some_ids(9, 0)
    with torch.no_grad():
        states = encoder(Packed.concatenate([ids]))[-1].values
        logits = encoder.vocabulary_logits(states)
        torch.testing.assert_close(logits, theirs(ids[None]).logits[0], atol=1e-5, rtol=0)
    headless, _ = loaded(tmp_path)
    torch.testing.assert_close(headless(Packed.concatenate([ids]))[-1].values, states)
    with pytest.raises(UsageError, match="has no masked-language head"):
        headless.vocabulary_logits(states)
    with pytest.raises(UsageError, match=r"its files lack \d+ weights of"):
        loaded(folders[kind], masked_language=True)


def test_an_ordinary_piece_is_no_mask() -> None:
    """MPNet's own table has BERT's mask as well."""
    vocabulary = {piece: n for n, piece in enumerate(("<s>", "</s>", "<mask>", "[MASK]", "a"))}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="a"))
    made.add_special_tokens(["<s>", "</s>", "<mask>"])
    assert TextTokenizer(made).mask_token == "<mask>"


def test_what_is_no_tokenizer(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="SimpleNamespace has no fast version"):
        TextTokenizer.of(SimpleNamespace(is_fast=False), 8)
    for content in (b"\xff", b"{}", b"[1]"):
        with pytest.raises(CorruptError, match="not a tokenizer: "):
            TextTokenizer.from_bytes(content)
    backend = tiny_tokenizer("bert").backend_tokenizer
    with pytest.raises(CorruptError, match="of another program"):
        TextTokenizer.from_bytes(backend.to_str().encode())


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    write_tiny(tmp_path, "bert", vocab_size=40)
    with pytest.raises(
        UsageError, match=r"its tokenizer has \d+ tokens, and it has vectors for 40"
    ):
        loaded(tmp_path)


@torch.no_grad()
def test_our_encoder_sees_no_neighbours() -> None:
    torch.manual_seed(0)
    encoder = TokenTransformer(20, 16, 2, 2, 0.0)
    items = [torch.randint(0, 20, (length,)) for length in (6, 2, 4)]
    together = encoder(Packed.concatenate(items))[-1].split()
    for item, states in zip(items, together, strict=True):
        torch.testing.assert_close(states, encoder(Packed.concatenate([item]))[-1].values)
    swapped = encoder(Packed.concatenate([items[0].flip(0)]))[-1].values.flip(0)
    assert not torch.allclose(swapped, together[0], atol=1e-3)  # it knows places
    by_hand = [[float(s @ w) for w in encoder.words.weight] for s in together[0]]
    torch.testing.assert_close(encoder.vocabulary_logits(together[0]), torch.tensor(by_hand))


def test_prompts_by_hand(tmp_path: Path) -> None:
    write_random_bert(tmp_path, ("or", "joy", "enjoy", "##ment", "so"))
    backbone, tokenizer = loaded(tmp_path)
    prompt = emotion_prompt(("joy", "enjoyment"), "so joy", tokenizer)
    # [CLS] joy or enjoy ##ment [SEP] so joy [SEP]
    assert prompt.ids.tolist() == [2, 6, 5, 7, 8, 3, 9, 6, 3]
    assert prompt.token_label.tolist() == [-1, 0, -1, 1, 1, -1, -1, -1, -1]
    for length in range(1, 8):  # six tokens before the text, one of the text, one behind it
        with pytest.raises(UsageError, match="emotion words take"):
            emotion_prompt(("joy", "enjoyment"), "so joy", tokenizer, length)
    cut = emotion_prompt(("joy", "enjoyment"), "so joy", tokenizer, 8)
    assert cut.ids.tolist() == [2, 6, 5, 7, 8, 3, 9, 3]
    Demux(DemuxConfig(emotions=("joy", "enjoyment")), backbone)
