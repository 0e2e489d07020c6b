"""Demux and MEmo: pooling and clusters by hand, permutations, new emotions, frozen words."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.prompted import (
    EMOTIONS,
    LABELS,
    POSTS,
    batch_of,
    masked_posts,
    posts,
    small_backbone,
    small_demux,
    small_memo,
    tokenizer,
)
from torch import Tensor, nn

from mmembed import losses
from mmembed.batch import Batch, Packed, Padded
from mmembed.features.emotion_words import wheel_correlation
from mmembed.features.prompt import emotion_prompt
from mmembed.methods.demux import Demux, DemuxConfig, Memo, MemoConfig, span_means
from mmembed.training.distributed import World
from mmembed.training.step import train_step

ALONE = World(0, 1, torch.device("cpu"))
ROWS = list(range(8))


class Bag(nn.Module):
    """Words that know of each other, but not of their places."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 16
        self.words = nn.Embedding(64, 16)

    def forward(self, tokens: Packed) -> list[Packed]:
        items = tokens.with_values(self.words(tokens.values)).split()
        states = [torch.tanh(x + (x @ x.T).softmax(-1) @ x) for x in items]
        return [tokens.with_values(torch.cat(states))]

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        return states @ self.words.weight.T


def hand_made(cluster: str) -> Demux:
    """D = 2, and a head that gives tanh(first coordinate) + 2 tanh(second) + 1/2."""
    backbone = Bag()
    backbone.width = 2
    config = DemuxConfig(
        emotions=("joy", "hope or optimism"),
        cluster=cluster,  # type: ignore[arg-type]
        dropout=0.0,
    )
    method = Demux(config, backbone)
    with torch.no_grad():
        first, last = method.head[0], method.head[3]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        first.weight.copy_(torch.eye(2))
        first.bias.zero_()
        last.weight.copy_(torch.tensor([[1.0, 2.0]]))
        last.bias.fill_(0.5)
    return method.eval()


# Two items; "joy" has two tokens in the first, "hope" one and "optimism" two in both.
STATES = Packed(
    torch.tensor(
        [[9.0, 9], [1, 0], [0, 1], [9, 9], [3, 3], [0, 0], [0, -3],  # the first item
         [-1, 0], [0, 2], [1, 1], [2, 0]]
    ),
    torch.tensor([7, 4]),
)  # fmt: skip
TOKEN_LABEL = Padded(
    torch.tensor([[-1, 0, 0, -1, 1, 2, 2], [0, 1, 2, 2, 5, 5, 5]]), torch.tensor([7, 4])
)


def head(x: float, y: float) -> float:
    return math.tanh(x) + 2 * math.tanh(y) + 0.5


def test_clusters_by_hand() -> None:
    logits, embeddings = hand_made("mean").classify(STATES, TOKEN_LABEL)
    # Over all tokens of the cluster, not over its members' means.
    means = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[-1.0, 0.0], [1.0, 1.0]]])
    torch.testing.assert_close(embeddings, means)
    expected = [[head(0.5, 0.5), head(1, 0)], [head(-1, 0), head(1, 1)]]
    torch.testing.assert_close(logits, torch.tensor(expected))
    logits, _ = hand_made("max").classify(STATES, TOKEN_LABEL)
    expected = [
        [head(0.5, 0.5), max(head(3, 3), head(0, -1.5))],
        [head(-1, 0), max(head(0, 2), head(1.5, 0.5))],
    ]
    torch.testing.assert_close(logits, torch.tensor(expected))


def test_a_span_without_tokens_has_a_zero_mean_and_no_item_leaks() -> None:
    means = span_means(STATES, TOKEN_LABEL, 4)
    assert not means[:, 3].any()
    alone = span_means(
        Packed(STATES.values[7:], STATES.lengths[1:]),
        Padded(TOKEN_LABEL.values[1:], TOKEN_LABEL.lengths[1:]),
        4,
    )
    assert torch.equal(alone[0], means[1])


@pytest.mark.parametrize("cluster", ["mean", "max"])
def test_logits_follow_a_renumbering_exactly(cluster: str) -> None:
    """The head and the pooling know no order: given states, a new order of the words is nothing
    but a new order of logits and embeddings, bit by bit.
    """
    method = hand_made(cluster)
    logits, embeddings = method.classify(STATES, TOKEN_LABEL)
    numbers = torch.tensor([2, 0, 1, -1])  # joy comes after the cluster; -1 stays -1
    inside = TOKEN_LABEL.values.clamp(max=2)
    method.ask(("hope or optimism", "joy"))
    moved = method.classify(STATES, Padded(numbers[inside], TOKEN_LABEL.lengths))
    assert torch.equal(moved[0], logits.flip(1)) and torch.equal(moved[1], embeddings.flip(1))


def test_words_in_another_order_without_positions_and_with() -> None:
    """With a backbone that knows no places the prompt's order means nothing; one that knows them
    reads another text, and its logits may differ: that is the paper's model.
    """
    order = [2, 0, 3, 1]
    asked = tuple(EMOTIONS[i] for i in order)
    torch.manual_seed(0)
    config = DemuxConfig(emotions=EMOTIONS, dropout=0.0)
    bag, placed = Demux(config, Bag()).eval(), small_demux().eval()
    for method, same in ((bag, True), (placed, False)):
        with torch.no_grad():
            before = method.predict(posts(ROWS))["emotions"]
            method.ask(asked)
            after = method.predict(posts(ROWS, asked))["emotions"]
        assert torch.allclose(after, before[:, order], rtol=0, atol=1e-5) == same


def test_any_emotions_may_be_asked() -> None:
    method = small_demux().eval()
    asked = ("pride", "quiet hope or joy", "enjoyment", "day", "word", "today")
    method.ask(asked)
    with torch.no_grad():
        chances = method.predict(posts(ROWS, asked))["emotions"]
    assert chances.shape == (8, 6) and ((chances > 0) & (chances < 1)).all()
    with pytest.raises(ValueError, match="4 labels an item, but the prompt asks pride"):
        method(posts(ROWS, asked))
    method.ask(("pride", "hope", "enjoyment", "day"))
    with pytest.raises(ValueError, match="other emotions"):
        method(posts(ROWS, method.emotions))


@pytest.mark.parametrize("local", ["inter", "intra", "complete"])
@pytest.mark.parametrize("pairs", ["alike", "data", "wheel"])
def test_sums_are_the_losses_of_the_logits(local: str, pairs: str) -> None:
    emotions = ("joy", "anger", "hope", "fear")
    rho = {"data": losses.label_correlation(LABELS)}
    if pairs == "wheel":
        emotions = ("joy", "anger", "trust", "fear")
        rho["wheel"] = wheel_correlation(emotions)
    torch.manual_seed(0)
    config = DemuxConfig(
        emotions=emotions,
        local=local,  # type: ignore[arg-type]
        local_pairs=pairs,  # type: ignore[arg-type]
        global_weight=0.5,
    )
    method = Demux(config, small_backbone()).eval()
    method.correlate(LABELS)
    assert method.weights == {"bce": 0.8, "local": 0.2, "global": 0.5}
    batch = posts(ROWS, emotions)
    with torch.no_grad():
        sums, (logits, embeddings) = method(batch), method.read(batch)
    known = [0, 1, 2, 4, 5, 6, 7]  # row 3 carries no label
    z, y, e = logits[known], LABELS[known], embeddings[known]
    affinity = None if pairs == "alike" else (rho[pairs] + 1) / 2
    expected = {
        "bce": nn.functional.binary_cross_entropy(z.sigmoid(), y, reduction="none").mean(1),
        "local": getattr(losses, local)(z, y, affinity),
        "global": losses.embedding_correlation(e, rho["data"]),
    }
    assert set(sums) == set(method.terms)
    for term, values in expected.items():
        torch.testing.assert_close(sums[term], values.sum())


def test_correlation_must_be_known_before_training() -> None:
    method = Demux(DemuxConfig(emotions=EMOTIONS), small_backbone())
    with pytest.raises(ValueError, match="correlate"):
        method(posts(ROWS))
    with pytest.raises(ValueError, match="training data first"):
        Demux(DemuxConfig(), small_backbone())


def test_an_item_without_text_stays_finite() -> None:
    prompts = [emotion_prompt(EMOTIONS, POSTS[0], tokenizer())]
    batch = batch_of([*prompts, *prompts], LABELS[:2])
    lengths = torch.tensor([len(prompts[0].ids), 0])
    text, token_label = batch.inputs["text"].values, batch.context["token_label"]
    assert isinstance(token_label, Padded)
    batch = Batch(
        batch.keys,
        {"text": Padded(text, lengths)},
        batch.targets,
        {"token_label": Padded(token_label.values, lengths)},
    )
    assert all(value.isfinite() for value in small_demux(global_weight=1.0)(batch).values())


def test_frozen_words_stay() -> None:
    prompted = posts(ROWS)
    prompt = prompted.context["token_label"]
    assert isinstance(prompt, Padded)
    ids = prompted.inputs["text"].values[prompt.mask & (prompt.values >= 0)].unique()
    method = small_demux(frozen=tuple(ids.tolist()))
    before = method.backbone.words.weight.detach().clone()  # type: ignore[union-attr]
    optimizer = torch.optim.AdamW(method.parameters(), weight_decay=0.1)
    for _ in range(3):
        train_step(method, optimizer, [prompted], rate=1e-2, clip=1.0, world=ALONE)
    method.predict(prompted)
    after = method.backbone.words.weight.detach()  # type: ignore[union-attr]
    moved = (after != before).any(1)
    assert not moved[ids].any() and moved.sum() == len(before) - len(ids)


def test_memo_reads_the_mask() -> None:
    batch = masked_posts(ROWS)
    word_ids = ((5,), (6, 7), (8, 9, 10), (11,))
    method = small_memo(readout="words", word_ids=word_ids).eval()
    text, prompt = batch.inputs["text"], batch.context["token_label"]
    assert isinstance(prompt, Padded) and isinstance(method, Memo)
    with torch.no_grad():
        logits, embeddings = method.read(batch)
        states = method.backbone(text.pack())[-1].pad().values
        table = method.backbone.words.weight.detach()  # type: ignore[union-attr]
    assert embeddings is None
    for row in ROWS:
        (place,) = (prompt.item(row) == 0).nonzero().flatten().tolist()
        for number, ids in enumerate(word_ids):
            expected = sum(float(states[row, place] @ table[i]) for i in ids)
            assert float(logits[row, number]) == pytest.approx(expected, abs=1e-5)
    method.ask(("joy",), ((6, 7),))
    with torch.no_grad():
        torch.testing.assert_close(method.read(batch)[0][:, 0], logits[:, 1])


def test_memo_knows_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="and no other"):
        small_memo().ask(("joy",), ((5,),))
    with pytest.raises(ValueError, match="global_weight"):
        small_memo(global_weight=1.0)
    with pytest.raises(ValueError, match="1 word_ids for 4 emotions"):
        small_memo(readout="words", word_ids=((5,),))
    assert MemoConfig().local_weight == DemuxConfig().local_weight == 0.2


def test_half_precision_gives_nearly_the_same() -> None:
    method, batch = small_demux(cluster="max", local="complete", global_weight=0.5), posts(ROWS)
    whole = method(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = method(batch)
    for term, value in whole.items():
        assert half[term].dtype == torch.float32
        torch.testing.assert_close(half[term], value, rtol=0.02, atol=0)
