"""The encoder's two invariants: company and padding change nothing, CTC never sees the text."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from helpers.support import random_item, small_encoder_config, small_method, with_padding

from mmembed.batch import Batch, Padded, SharedLayers
from mmembed.data.item import EMPTY, Item, collate
from mmembed.encoder import Encoder
from mmembed.streams import STREAMS, stream_subsets


def make_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(small_encoder_config()).eval()


@torch.no_grad()
def test_same_vector_alone_and_in_company(seven_items: list[Item]) -> None:
    encoder = make_encoder()
    together = encoder(collate(seven_items).inputs)
    for row, item in enumerate(seven_items):
        alone = encoder(collate([item]).inputs)
        torch.testing.assert_close(alone.pooled[0], together.pooled[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.layers[0], together.layers[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            alone.frames.item(0), together.frames.item(row), rtol=0, atol=1e-5
        )


@torch.no_grad()
@pytest.mark.parametrize("extra", [0, 1, 13])
def test_padding_of_nan_changes_nothing(seven_items: list[Item], extra: int) -> None:
    encoder = make_encoder()
    batch = collate(seven_items)
    plain = encoder(batch.inputs)
    padded = encoder(with_padding(batch, extra, float("nan")).inputs)
    assert torch.equal(plain.layers, padded.layers)
    assert torch.equal(plain.frames.values, padded.frames.values)
    assert plain.layers.isfinite().all()


@torch.no_grad()
def test_content_of_an_absent_stream_cannot_matter() -> None:
    encoder = make_encoder()
    item = random_item(("audio",), 3)
    batch = collate([item])
    noisy = {
        **batch.inputs,
        "video": Padded(torch.full((1, 9, 64, 64), 200, dtype=torch.uint8), torch.tensor([0])),
        "text": Padded(torch.full((1, 4), 5), torch.tensor([0])),
    }
    only = encoder({"audio": batch.inputs["audio"]})
    assert torch.equal(only.layers, encoder(noisy).layers)
    assert only.streams.tolist() == [[True, False, False]]


@torch.no_grad()
def test_every_subset_has_its_own_finite_embedding() -> None:
    encoder = make_encoder()
    item = random_item(STREAMS, 2)
    vectors = []
    for subset in stream_subsets():
        kept = {s: item.inputs[s] if s in subset else EMPTY[s] for s in STREAMS}
        vectors.append(encoder(collate([dataclasses.replace(item, inputs=kept)]).inputs).pooled[0])
    distances = torch.cdist(torch.stack(vectors), torch.stack(vectors))
    assert torch.stack(vectors).isfinite().all()
    assert (distances + torch.eye(7) > 1e-3).all()


@torch.no_grad()
def test_a_memo_changes_no_bit_and_each_front_end_runs_once(seven_items: list[Item]) -> None:
    """Seven items, one with each subset, under each of the seven subsets."""
    encoder, shared, runs = make_encoder(), SharedLayers(), list[str]()
    batches = [collate(with_streams(seven_items, subset)).inputs for subset in stream_subsets()]
    alone = [encoder(batch) for batch in batches]
    for stream, frontend in encoder.frontends.items():
        frontend.register_forward_hook(lambda *_, s=stream: runs.append(s))
    for batch, expected in zip(batches, alone, strict=True):
        found = encoder.pool(encoder.encode(batch, shared), shared)
        assert torch.equal(found.layers, expected.layers)
        assert torch.equal(found.pooled, expected.pooled)
        assert torch.equal(found.frames.values, expected.frames.values)
    assert sorted(runs) == sorted(STREAMS)


def with_streams(items: list[Item], subset: tuple[str, ...]) -> list[Item]:
    """The items that have any of a subset's streams, with these alone."""
    own = [{s: x.inputs[s] if s in subset else EMPTY[s] for s in STREAMS} for x in items]
    pairs = [pair for pair in zip(items, own, strict=True) if any(map(len, pair[1].values()))]
    return [dataclasses.replace(item, inputs=inputs) for item, inputs in pairs]


def test_clock_runs_at_25_hz_of_the_audio() -> None:
    encoder = make_encoder()
    for frames, steps in ((1, 1), (4, 1), (5, 2), (100, 25), (101, 26)):
        audio = Padded(torch.zeros(1, frames, 80), torch.tensor([frames]))
        assert encoder({"audio": audio}).frames.lengths.tolist() == [steps]
    video = Padded(torch.zeros(1, 7, 64, 64, dtype=torch.uint8), torch.tensor([7]))
    assert encoder({"video": video}).frames.lengths.tolist() == [7]
    text = Padded(torch.ones(1, 3, dtype=torch.int64), torch.tensor([3]))
    assert encoder({"text": text}).frames.lengths.tolist() == [3]


def test_an_item_without_any_stream_is_refused() -> None:
    empty = Padded(torch.zeros(2, 8, 80), torch.tensor([8, 0]))
    with pytest.raises(ValueError, match="item 1 of the batch has no stream"):
        make_encoder()({"audio": empty})


def test_ctc_has_no_gradient_from_the_text(seven_items: list[Item]) -> None:
    """Text reaches the fused frames, but neither the CTC logits nor the speaker's."""
    method = small_method()
    batch = collate(seven_items)
    embedding = method.encoder.frontends["text"].embedding.weight
    hidden = method.encoder.encode(batch.inputs)
    logits = method.ctc_head(hidden.audio_visual.values)
    (leak,) = torch.autograd.grad(
        logits.square().sum(), embedding, retain_graph=True, allow_unused=True
    )
    assert leak is None or not leak.any()
    (reach,) = torch.autograd.grad(hidden.fused.values.square().sum(), embedding)
    assert reach.any()


@torch.no_grad()
def test_predictions_do_not_change_with_other_words() -> None:
    method = small_method().eval()
    item = random_item(STREAMS, 2)
    other = dataclasses.replace(item, inputs={**item.inputs, "text": item.inputs["text"] - 1})
    first, second = (method.predict(collate([i])) for i in (item, other))
    assert torch.equal(first["transcript"], second["transcript"])
    assert torch.equal(first["speaker"], second["speaker"])


def test_fusion_starts_at_the_published_weights() -> None:
    torch.testing.assert_close(make_encoder().fusion_weights, torch.tensor([0.4, 0.4, 0.2]))


def test_layer_names_match_layers(seven_items: list[Item]) -> None:
    encoder = make_encoder()
    assert encoder.layer_names == (
        "audio 0", "audio 1", "audio 2", "video 0", "video 1", "text 0", "text 1",
        "video aligned", "text aligned", "fused",
    )  # fmt: skip
    batch: Batch = collate(seven_items)
    encoding = encoder(batch.inputs)
    assert encoding.layers.shape == (7, 10, 64)
    assert list(encoder.encode(batch.inputs).layers) == list(encoder.layer_names)
