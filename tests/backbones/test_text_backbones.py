"""Our small text encoder, and the wrapping of transformers around made-up models of its kind."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.prompted import EMOTIONS, POSTS, PairTokenizer, TokenTransformer, WordPieceTokenizer
from helpers.tiny_bert import write_random_bert
from torch import Tensor, nn

from mmembed.backbones.text import (
    HubBackbone,
    HubTokenizer,
    load_backbone,
    token_types,
)
from mmembed.errors import UsageError
from mmembed.features.prompt import emotion_prompt, masked_prompt
from mmembed.methods.demux import Demux, DemuxConfig

PAD, SEPARATOR = 7, 1


class Encoded(dict[str, Any]):
    """What a tokenizer of transformers returns."""

    def sequence_ids(self) -> list[int | None]:
        whose: list[int | None] = self["whose"]
        return whose


class FakeTokenizer:
    """A `PairTokenizer` behind the interface of transformers."""

    mask_token = PairTokenizer.mask_token
    pad_token_id, sep_token_id = PAD, SEPARATOR

    def __init__(self, inner: PairTokenizer, fast: bool) -> None:
        self.inner, self.is_fast = inner, fast

    def __call__(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        truncation: str = "",
        max_length: int = 1000,
        add_special_tokens: bool = True,
        return_offsets_mapping: bool = False,
    ) -> Encoded:
        if not add_special_tokens:
            return Encoded(
                input_ids=[self.inner.number(piece) for piece, _ in self.inner.cut(text)]
            )
        if truncation:
            assert truncation == ("only_first" if text_pair is None else "only_second")
        assert self.is_fast or not return_offsets_mapping
        if text_pair is not None:  # as in the library tokenizers, which leaves one token at least
            surplus = len(self.inner.tokenize(text, text_pair, 1000).ids) - max_length
            if surplus > 0 and len(self.inner.cut(text_pair)) <= surplus:
                raise ValueError("sequence to truncate too short")
        tokens = self.inner.tokenize(text, text_pair, max_length)
        special = [i in (0, 1) for i in tokens.ids]
        return Encoded(
            input_ids=list(tokens.ids),
            offset_mapping=[span or (0, 0) for span in tokens.spans],
            whose=[
                None if s else int(span is None)
                for s, span in zip(special, tokens.spans, strict=True)
            ],
        )


class FakeModel(nn.Module):
    """Adds up what it was given, so that tests can read it off."""

    def __init__(self, types: int = 2) -> None:
        super().__init__()
        self.config = SimpleNamespace(hidden_size=3, type_vocab_size=types)
        self.words = nn.Embedding(64, 3)
        self.pooler = nn.Linear(3, 3)
        self.lm_head = nn.Linear(3, 64)

    @property
    def base_model(self) -> FakeModel:
        return self

    def get_input_embeddings(self) -> nn.Embedding:
        return self.words

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SimpleNamespace:
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        states = torch.stack((input_ids, attention_mask, types), 2).float()
        return SimpleNamespace(last_hidden_state=states)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A made-up transformers that remembers what it was asked for."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def source(make: Any) -> SimpleNamespace:
        def from_pretrained(name: str, **settings: Any) -> Any:
            asked.append((name, settings))
            return make()

        return SimpleNamespace(from_pretrained=from_pretrained)

    made = SimpleNamespace(
        asked=asked,
        utils=SimpleNamespace(logging=SimpleNamespace(disable_progress_bar=lambda: None)),
        AutoTokenizer=source(lambda: FakeTokenizer(PairTokenizer(), True)),
        AutoModel=source(FakeModel),
        AutoModelForMaskedLM=source(lambda: FakeModel(1)),
    )
    monkeypatch.setitem(sys.modules, "transformers", made)  # type: ignore[arg-type]
    return made


def test_without_the_library_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"^bert-base: needs pip install 'mmembed\[text\]'"):
        load_backbone("bert-base")


def test_a_folder_is_read_safely_and_alone(library: SimpleNamespace, tmp_path: Path) -> None:
    backbone, tokenizer = load_backbone(str(tmp_path))
    safe = {"local_files_only": True, "trust_remote_code": False}
    name = str(tmp_path)
    told = {"use_safetensors": True, "attn_implementation": "eager"}
    assert library.asked == [(name, safe), (name, {**safe, **told})]
    assert (backbone.pad, backbone.separator, backbone.width) == (PAD, SEPARATOR, 3)
    assert tokenizer.mask_token == "[MASK]" and backbone.model.pooler is None
    load_backbone("someone/model", masked_language=True)
    assert library.asked[-1][1]["local_files_only"] is False


@pytest.mark.parametrize("name", ["/no/such", "./no", "~/no", "a/b/c"])
def test_a_missing_folder_is_no_hub_name(library: SimpleNamespace, name: str) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        load_backbone(name)
    assert library.asked == []


def test_what_the_library_refuses_is_told_in_one_line(library: SimpleNamespace) -> None:
    def refuse(name: str, **settings: Any) -> Any:
        raise OSError("no file\nnamed model.safetensors")

    library.AutoModel.from_pretrained = refuse
    with pytest.raises(UsageError, match=r"someone/old: .*no file named model") as caught:
        load_backbone("someone/old")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", [PairTokenizer, WordPieceTokenizer])
def test_spans_come_from_offsets_or_word_by_word(kind: type[PairTokenizer], fast: bool) -> None:
    inner = kind()
    wrapped = HubTokenizer(FakeTokenizer(inner, fast))
    for text in (*POSTS, ""):
        for length in (64, 24):
            ours = emotion_prompt(EMOTIONS, text, wrapped, length)
            theirs = emotion_prompt(EMOTIONS, text, inner, length)
            assert torch.equal(ours.ids, theirs.ids) and torch.equal(
                ours.token_label, theirs.token_label
            )
        ours, theirs = masked_prompt(text, wrapped), masked_prompt(text, inner)
        assert torch.equal(ours.ids, theirs.ids) and torch.equal(
            ours.token_label, theirs.token_label
        )
    with pytest.raises(UsageError, match="emotion words take"):
        emotion_prompt(EMOTIONS, "ok", wrapped, 6)


def test_words_that_split_otherwise_together_are_told() -> None:
    class Joining(PairTokenizer):
        def cut(self, text: str) -> list[tuple[str, tuple[int, int]]]:
            return [(text, (0, len(text)))]

    with pytest.raises(UsageError, match="use its fast version"):
        emotion_prompt(("joy", "hope"), "ok", HubTokenizer(FakeTokenizer(Joining(), False)))


def test_segments_by_hand() -> None:
    ids = torch.tensor([[0, 5, 6, 1, 5, 1, 7], [0, 5, 1, 7, 7, 7, 7]])
    expected = [[0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1]]
    assert token_types(ids, SEPARATOR).tolist() == expected


@pytest.mark.parametrize("types", [1, 2])
def test_the_library_gets_ids_masks_and_segments(types: int) -> None:
    backbone = HubBackbone(FakeModel(types), PAD, SEPARATOR)
    ids = torch.tensor([[0, 5, 1, 6, 1], [0, 5, 1, 99, 99]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    given, attended, segments = backbone(ids, mask).long().unbind(2)
    assert given.tolist() == [[0, 5, 1, 6, 1], [0, 5, 1, PAD, PAD]]
    assert torch.equal(attended, mask.long())
    assert segments.tolist()[0] == ([0, 0, 0, 1, 1] if types == 2 else [0] * 5)


def test_the_masked_language_head_is_found() -> None:
    model = FakeModel()
    backbone = HubBackbone(model, PAD, SEPARATOR)
    states = torch.randn(2, 3)
    assert torch.equal(backbone.vocabulary_logits(states), model.lm_head(states))
    model.cls = nn.Linear(3, 9)
    assert backbone.vocabulary_logits(states).shape == (2, 9)
    with pytest.raises(UsageError, match="Embedding has no masked-language head"):
        HubBackbone(nn.Embedding(2, 2), PAD, SEPARATOR).vocabulary_logits(states)


@torch.no_grad()
def test_our_encoder_sees_neither_padding_nor_neighbours() -> None:
    torch.manual_seed(0)
    encoder = TokenTransformer(20, 16, 2, 2, 0.0)
    ids = torch.randint(0, 20, (3, 6))
    mask = torch.arange(6) < torch.tensor([[6], [2], [4]])
    together = encoder(ids, mask)
    for row, length in enumerate((6, 2, 4)):
        alone = encoder(ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row, :length], alone[0])
        assert not together[row, length:].any()
    swapped = encoder(ids[:1].flip(1), mask[:1]).flip(1)
    assert not torch.allclose(swapped, together[:1], atol=1e-3)  # it knows places
    by_hand = [[float(s @ w) for w in encoder.words.weight] for s in together[0]]
    torch.testing.assert_close(encoder.vocabulary_logits(together[0]), torch.tensor(by_hand))


def test_a_real_model_of_transformers(tmp_path: Path) -> None:
    """Spans and states of a BERT made here, saved and loaded again; needs the text extra."""
    write_random_bert(tmp_path, ("or", "joy", "enjoy", "##ment", "so"))
    backbone, tokenizer = load_backbone(str(tmp_path))
    prompt = emotion_prompt(("joy", "enjoyment"), "so joy", tokenizer)
    # [CLS] joy or enjoy ##ment [SEP] so joy [SEP]
    assert prompt.ids.tolist() == [2, 6, 5, 7, 8, 3, 9, 6, 3]
    assert prompt.token_label.tolist() == [-1, 0, -1, 1, 1, -1, -1, -1, -1]
    for length in range(1, 7):  # six tokens before the text
        with pytest.raises(UsageError, match="emotion words take"):
            emotion_prompt(("joy", "enjoyment"), "so joy", tokenizer, length)
    cut = emotion_prompt(("joy", "enjoyment"), "so joy", tokenizer, 8)
    assert cut.ids.tolist() == [2, 6, 5, 7, 8, 3, 9, 3]
    backbone.eval()
    with torch.no_grad():
        ids = prompt.ids[None]
        alone = backbone(ids, torch.ones(1, 9, dtype=torch.bool))
        padded = backbone(torch.cat((ids, ids), 1), (torch.arange(18) < 9)[None])
    torch.testing.assert_close(alone, padded[:, :9], atol=1e-5, rtol=0)
    Demux(DemuxConfig(emotions=("joy", "enjoyment")), backbone)
