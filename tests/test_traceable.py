"""The traceable encoder says what the packed one says, whatever stands in the padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.encoders import write_on_pretrained
from helpers.support import random_item, small_encoder_config, with_padding

from mmembed.batch import Packed, Padded
from mmembed.data.item import collate
from mmembed.embedder import Embedder
from mmembed.encoder import Encoder
from mmembed.pretrained_encoder import PretrainedEncoder
from mmembed.streams import STREAMS, stream_subsets, subset_name
from mmembed.traceable import lengths_name, traceable


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
    found = traceable(encoder, subset)(flat(inputs))
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
    found = traceable(encoder, STREAMS)(wrong)
    alone = encoder(inputs_of(STREAMS, [3]))
    for name in ("pooled", "frames", "layers"):
        assert found[name][0].isnan().all()
        assert found[name][1].isfinite().all()
    torch.testing.assert_close(found["pooled"][1:], alone.pooled, rtol=0, atol=1e-5)


def test_it_has_no_weights_of_its_own() -> None:
    encoder = make_encoder()
    made = traceable(encoder, ("audio",))
    assert {id(p) for p in made.parameters()} == {id(p) for p in encoder.parameters()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an encoder on tiny pretrained ones, in whisper, vit and bert beside it."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_on_pretrained(folder, "whisper", "vit", "bert")
    return folder


@pytest.fixture(scope="module")
def on_pretrained(folder: Path) -> Encoder:
    """Its front ends are pretrained, wider than it, and read samples, pictures and pieces."""
    encoder = Embedder.from_pretrained(folder / "encoder").encoder
    assert isinstance(encoder, Encoder)
    return encoder


@pytest.fixture(scope="module", params=["on pretrained", "side by side", "audio", "text"])
def pretrained(
    request: pytest.FixtureRequest, folder: Path, on_pretrained: Encoder
) -> Encoder | PretrainedEncoder:
    """Encoders with pretrained ones: the one above, and these themselves."""
    if request.param == "on pretrained":
        return on_pretrained
    names = {"audio": "whisper", "video": "vit", "text": "bert"}
    kept = names if request.param == "side by side" else (request.param,)
    return Embedder.from_pretrained({s: str(folder / names[s]) for s in kept}).encoder


@torch.no_grad()
def test_equals_the_packed_encoder_of_pretrained_ones(
    pretrained: Encoder | PretrainedEncoder,
) -> None:
    draw = torch.Generator().manual_seed(0)
    clips = {
        "audio": Packed(0.1 * torch.randn(9_000, generator=draw), torch.tensor([6_500, 2_499, 1])),
        "video": Packed(
            torch.randint(256, (13, 32, 32, 3), generator=draw).byte(), torch.tensor([8, 1, 4])
        ),
        "text": Packed(torch.randint(5, 80, (16,), generator=draw), torch.tensor([9, 6, 1])),
    }
    for subset in stream_subsets(pretrained.reads):
        expected = pretrained({stream: clips[stream] for stream in subset})
        assert expected.pooled.shape == (3, 2 * pretrained.frame_width)
        assert expected.layers.shape[2] == 2 * pretrained.layer_width
        given = {}
        for stream in subset:
            backbone = pretrained.backbone(stream)
            assert backbone is not None
            padded = backbone.to_padded(clips[stream])
            junk = float("nan") if stream == "audio" else 7
            more = padded.values.new_full((3, 5, *padded.values.shape[2:]), junk)
            given[stream] = padded.with_values(torch.cat((padded.values, more), 1))
            given[stream].values[~given[stream].mask] = junk
        found = traceable(pretrained, subset)(flat(given))
        torch.testing.assert_close(found["pooled"], expected.pooled, rtol=0, atol=1e-5)
        torch.testing.assert_close(found["layers"], expected.layers, rtol=0, atol=1e-5)
        assert torch.equal(found["frame_lengths"], expected.frames.lengths)
        longest = expected.frames.values.shape[1]
        frames = found["frames"]
        torch.testing.assert_close(frames[:, :longest], expected.frames.values, rtol=0, atol=1e-5)
        assert not frames[:, longest:].any()


@torch.no_grad()
def test_a_clip_longer_than_a_front_end_reads_gives_nan_for_that_clip_alone(
    on_pretrained: Encoder,
) -> None:
    values = torch.zeros(2, 3_010, 20)
    lengths = torch.tensor([3_001, 3_000])
    found = traceable(on_pretrained, ("audio",))({"audio": values, "audio_lengths": lengths})
    assert found["layers"].isnan().flatten(1).all(1).tolist() == [True, False]
    assert found["pooled"][1].isfinite().all()
