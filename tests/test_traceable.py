"""The traceable encoder says what the packed one says, whatever stands in the padding."""

from __future__ import annotations

import pytest
import torch
from helpers.support import random_item, small_encoder_config, with_padding

from mmembed.batch import STREAMS, Padded, stream_subsets, subset_name
from mmembed.data.item import collate
from mmembed.encoder import Encoder
from mmembed.traceable import TraceableEncoder, lengths_name


def make_encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(small_encoder_config()).eval().requires_grad_(False)


def inputs_of(subset: tuple[str, ...], seeds: list[int], extra: int = 0) -> dict[str, Padded]:
    """Random items, `extra` more steps of NaN, 7s or token 7 behind the longest."""
    batch = collate([random_item(subset, seed) for seed in seeds])
    padded = with_padding(batch, extra, float("nan")).inputs
    return {stream: padded[stream] for stream in subset}


def flat(inputs: dict[str, Padded]) -> dict[str, torch.Tensor]:
    values = {stream: padded.values for stream, padded in inputs.items()}
    return values | {lengths_name(stream): padded.lengths for stream, padded in inputs.items()}


@pytest.mark.parametrize("subset", stream_subsets(), ids=subset_name)
@pytest.mark.parametrize(("seeds", "extra"), [([0], 0), ([4, 0, 1], 0), ([2, 5], 13)])
def test_equals_the_packed_encoder(subset: tuple[str, ...], seeds: list[int], extra: int) -> None:
    encoder, inputs = make_encoder(), inputs_of(subset, seeds, extra)
    expected = encoder(inputs)
    found = TraceableEncoder(encoder, subset)(flat(inputs))
    torch.testing.assert_close(found["pooled"], expected.pooled, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["layers"], expected.layers, rtol=0, atol=1e-5)
    assert torch.equal(found["frame_lengths"], expected.frames.lengths)
    longest = expected.frames.values.shape[1]
    frames = found["frames"]
    torch.testing.assert_close(frames[:, :longest], expected.frames.values, rtol=0, atol=1e-5)
    assert not frames[:, longest:].any()


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("length", [0, -1, 1000])
def test_a_length_that_cannot_be_gives_nan_for_that_item_alone(stream: str, length: int) -> None:
    encoder, inputs = make_encoder(), inputs_of(STREAMS, [2, 3])
    wrong = flat(inputs)
    wrong[lengths_name(stream)][0] = length
    found = TraceableEncoder(encoder, STREAMS)(wrong)
    alone = encoder(inputs_of(STREAMS, [3]))
    for name in ("pooled", "frames", "layers"):
        assert found[name][0].isnan().all()
        assert found[name][1].isfinite().all()
    torch.testing.assert_close(found["pooled"][1:], alone.pooled, rtol=0, atol=1e-5)


def test_it_has_no_weights_of_its_own() -> None:
    encoder = make_encoder()
    traceable = TraceableEncoder(encoder, ("audio",))
    assert {id(p) for p in traceable.parameters()} == {id(p) for p in encoder.parameters()}
