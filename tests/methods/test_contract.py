"""What holds for every method, whatever its paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import test_emotion_queries
import torch
from helpers.dialogues import random_dialogues, small_sdt
from helpers.prompted import masked_posts, posts, small_demux, small_memo
from helpers.streams import VECTORS, in_training, sentiment_batch
from helpers.support import mean_losses, random_item, small_method, with_padding
from safetensors.torch import load, save
from torch import Tensor

from mmembed.batch import Batch, Packed, Padded
from mmembed.data.item import collate
from mmembed.method import Method
from mmembed.methods.emotion import EmotionRegressor
from mmembed.methods.layer_anchor import LayerAnchor, LayerAnchorConfig
from mmembed.settings.methods import EmotionConfig
from mmembed.streams import STREAMS, stream_subsets
from mmembed.training.distributed import World
from mmembed.training.step import accumulate_gradients, train_step

ALONE = World(0, 1, torch.device("cpu"))


def regressor() -> EmotionRegressor:
    torch.manual_seed(0)
    return EmotionRegressor(EmotionConfig(layers=3, width=8, hidden=16, dropout=0.0))


def clips(rows: list[int]) -> Batch:
    subsets = [*stream_subsets(), STREAMS]
    return collate([random_item(subsets[row], row) for row in rows])


def vectors(rows: list[int]) -> Batch:
    values = torch.randn(8, 3, 8, generator=torch.Generator().manual_seed(1))[rows]
    generator = torch.Generator().manual_seed(2)
    sentiment = torch.rand(8, generator=generator)[rows] * 6 - 3
    emotions = torch.rand(8, 6, generator=generator)[rows] * 3
    if 3 in rows:
        sentiment[rows.index(3)] = float("nan")
    return Batch(
        tuple(f"item-{row}" for row in rows),
        {"embedding": Padded(values, torch.full((len(rows),), 3))},
        {"sentiment": sentiment, "emotions": emotions},
    )


def layer_anchor() -> LayerAnchor:
    torch.manual_seed(0)
    return LayerAnchor(LayerAnchorConfig(layers=3, width=8, anchors=(1, 2), dropout=0.0))


def two_languages(rows: list[int]) -> Batch:
    """Emotions of the source, rows 0 to 4, and of none of the target; one language not known."""
    batch = vectors(rows)
    emotion = torch.tensor([0, 1, 2, 3, 1, -1, -1, -1])[rows]
    language = torch.tensor([0, 0, 0, 0, -1, 1, 1, 1])[rows]
    return Batch(batch.keys, batch.inputs, {"emotion": emotion}, {"language": language})


METHODS: dict[str, tuple[Callable[[], Method], Callable[[list[int]], Batch]]] = {
    "ctc_speaker": (small_method, clips),
    "ctc_speaker, margin": (partial(small_method, speaker_loss="margin"), clips),
    "emotion": (regressor, vectors),
    "sdt": (small_sdt, random_dialogues),
    "self_mm": (in_training, sentiment_batch),
    "self_mm, vectors": (
        partial(in_training, VECTORS),
        partial(sentiment_batch, streams=VECTORS),
    ),
    "emotion_queries": (test_emotion_queries.make, test_emotion_queries.clips),
    "layer_anchor": (layer_anchor, two_languages),
    "demux": (partial(small_demux, global_weight=0.1), posts),
    "demux, complete": (
        partial(small_demux, local="complete", cluster="max", global_weight=0.1),
        posts,
    ),
    "memo": (small_memo, masked_posts),
    "memo, words": (
        partial(small_memo, readout="words", word_ids=((5, 6), (7,), (8,), (9, 10))),
        masked_posts,
    ),
}


def in_double(batch: Batch) -> Batch:
    """The same items, all that is a number with a fraction in float64."""

    def widened(value: Tensor | Packed | Padded) -> Tensor | Packed | Padded:
        if isinstance(value, Packed | Padded):
            return value.with_values(widened(value.values))  # type: ignore[arg-type]
        return value.double() if value.is_floating_point() else value

    inputs = {name: widened(padded) for name, padded in batch.inputs.items()}
    targets = {name: widened(value) for name, value in batch.targets.items()}
    return replace(batch, inputs=inputs, targets=targets)


Given = tuple[Method, Callable[[list[int]], Batch], Callable[[], Method]]


@pytest.fixture(params=list(METHODS))
def given(request: pytest.FixtureRequest) -> Given:
    """A method, a function from row numbers to batches for it, a function that makes another."""
    make, batches = METHODS[request.param]
    return make(), batches, make


@torch.no_grad()
def test_sums_add_up_over_batch_mates(given: Given) -> None:
    method, batches, _ = given
    method.eval()
    whole = method(batches(list(range(8))))
    parts = [method(batches([row])) for row in range(8)]
    added = [t for t in method.terms if method.weights[t] > 0 and t not in method.batch_terms]
    for term in added:
        total = sum(part.get(term, torch.tensor(0.0)) for part in parts)
        torch.testing.assert_close(whole[term], total, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_predictions_do_not_depend_on_batch_mates(given: Given) -> None:
    method, batches, _ = given
    method.eval()
    whole = method.predict(batches(list(range(8))))
    for row in range(8):
        for target, alone in method.predict(batches([row])).items():
            together = whole[target][row]
            if target in ("transcript", "turn_emotion"):
                together = together[: alone.shape[1]]
            torch.testing.assert_close(alone[0], together, rtol=0, atol=1e-5)


@torch.no_grad()
def test_padding_changes_no_loss(given: Given) -> None:
    method, batches, _ = given
    batch = batches(list(range(8)))
    if "embedding" in batch.inputs:
        pytest.skip("embeddings have no padding")
    method.eval()
    plain, padded = method(batch), method(with_padding(batch, 9, float("nan")))
    assert {t: float(v) for t, v in plain.items()} == {t: float(v) for t, v in padded.items()}


def test_no_label_at_all_stays_finite(given: Given) -> None:
    method, batches, _ = given
    batch = batches(list(range(8)))
    context = {} if method.batch_terms else batch.context  # languages are labels there
    bare = Batch(batch.keys, batch.inputs, {}, context)
    if isinstance(method, EmotionRegressor):
        nothing = {n: torch.full_like(v, float("nan")) for n, v in batch.targets.items()}
        bare = Batch(batch.keys, batch.inputs, nothing)
    losses = mean_losses(method, [bare])
    assert all(value == 0 for value in losses.values())
    assert all(p.grad is not None and not p.grad.any() for p in method.parameters())


def test_every_parameter_is_trained(given: Given) -> None:
    method, batches, _ = given
    accumulate_gradients(method, [batches(list(range(8)))], ALONE)
    idle = {n for n, p in method.named_parameters() if p.grad is None or not p.grad.any()}
    # Only fused frames hold the absent text, and no loss reads them of an item without text.
    assert idle <= {"encoder.absent.text"}


def test_double_precision_runs_through(given: Given) -> None:
    """What must be at least float32 is not cut down to it: forward, backward and predict."""
    method, batches, make = given
    batch = batches(list(range(8)))
    single, double = make().eval(), method.double().eval()
    with torch.no_grad():
        expected, found = single.predict(batch), double.predict(in_double(batch))
        terms = single(batch)
    for target, values in found.items():
        if values.is_floating_point():
            assert values.dtype == torch.float64
            torch.testing.assert_close(values.float(), expected[target], rtol=1e-3, atol=1e-4)
    sums = double(in_double(batch))
    assert sums.keys() == terms.keys()
    for term, total in sums.items():
        assert total.dtype == torch.float64
        torch.testing.assert_close(total.float(), terms[term], rtol=1e-3, atol=1e-4)
    double.train()
    accumulate_gradients(double, [in_double(batch)], ALONE)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in double.parameters())


def test_state_round_trips(given: Given) -> None:
    method, batches, make = given
    optimizer = torch.optim.AdamW(method.parameters())
    train_step(method, optimizer, [batches([0, 7])], rate=1e-2, clip=1.0, world=ALONE)
    state = load(save({k: v.contiguous() for k, v in method.state_dict().items()}))
    other = make()
    other.load_state_dict(state, strict=True)
    batch = batches([0, 7])
    method.eval()
    other.eval()
    with torch.no_grad():
        first, second = method.predict(batch), other.predict(batch)
    assert all(torch.equal(first[target], second[target]) for target in first)


def test_eight_items_overfit(given: Given) -> None:
    method, batches, _ = given
    optimizer = torch.optim.AdamW(method.parameters(), weight_decay=0.0)
    batch = batches(list(range(8)))
    first = train_step(method, optimizer, [batch], rate=5e-3, clip=1.0, world=ALONE)
    for _ in range(100):
        last = train_step(method, optimizer, [batch], rate=5e-3, clip=1.0, world=ALONE)
    assert last.loss < 0.2 * first.loss


def test_a_term_of_weight_zero_is_off() -> None:
    method = small_method(speaker_weight=0.0)
    losses = mean_losses(method, [clips(list(range(8)))])
    assert set(losses) == {"ctc", "masked_text"}
