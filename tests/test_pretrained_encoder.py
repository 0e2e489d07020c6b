"""Public encoders side by side: layers as they are, zeros where a stream is missing."""

from __future__ import annotations

import pytest
import torch
from helpers.tiny_backbones import write_tiny

from mmembed.backbones.pretrained import load_pretrained
from mmembed.batch import Packed, SharedLayers
from mmembed.nn.transformer import mean_and_std
from mmembed.pretrained_encoder import PretrainedEncoder
from mmembed.streams import stream_subsets

KINDS = {"audio": ("whisper", {}), "video": ("vit", {}), "text": ("bert", {"hidden_size": 24})}
CLIPS = [(6_400, 8, 4), (3_000, 0, 3), (0, 5, 0), (1_300, 2, 0)]  # samples, frames, tokens


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PretrainedEncoder:
    folder = tmp_path_factory.mktemp("tiny")
    made = {
        stream: load_pretrained(str(write_tiny(folder / kind, kind, **changed))).encoder
        for stream, (kind, changed) in KINDS.items()
    }
    return PretrainedEncoder(made).eval()


def clip(samples: int, frames: int, tokens: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(samples + frames)
    return {
        "audio": 0.1 * torch.randn(samples, generator=draw),
        "video": torch.randint(0, 255, (frames, 40, 40), generator=draw).byte(),
        "text": torch.randint(5, 70, (tokens,), generator=draw),
    }


def batch(clips: list[dict[str, torch.Tensor]]) -> dict[str, Packed]:
    return {s: Packed.concatenate([one[s] for one in clips]) for s in KINDS}


@torch.no_grad()
def test_each_clip_has_the_layers_of_each_stream_alone(encoder: PretrainedEncoder) -> None:
    clips = [clip(*sizes) for sizes in CLIPS]
    together = encoder(batch(clips))
    assert encoder.layer_width == 24 and together.layers.shape == (4, 3 + 4 + 4, 48)
    for row, one in enumerate(clips):
        torch.testing.assert_close(encoder(batch([one])).layers[0], together.layers[row])
        for stream, module in encoder.encoders.items():
            names = [n for n in encoder.layer_names if n.startswith(stream)]
            rows = [encoder.layer_names.index(name) for name in names]
            found = together.layers[row, rows]
            if not len(one[stream]):
                assert not found.any()
                continue
            own = module(Packed(one[stream], torch.tensor([len(one[stream])])))
            expected = torch.stack([mean_and_std(layer)[0] for layer in own])
            width = module.width
            torch.testing.assert_close(found[:, :width], expected[:, :width])
            torch.testing.assert_close(found[:, 24 : 24 + width], expected[:, width:])
            assert not found[:, width:24].any() and not found[:, 24 + width :].any()


@torch.no_grad()
def test_one_vector_is_the_last_layers_side_by_side(encoder: PretrainedEncoder) -> None:
    found = encoder(batch([clip(*sizes) for sizes in CLIPS]))
    assert found.pooled.shape == (4, 2 * (16 + 16 + 24))
    last = [encoder.layer_names.index(name) for name in ("audio 2", "video 3", "text 3")]
    audio, video, text = (found.layers[:, row] for row in last)
    means = torch.cat([audio[:, :16], video[:, :16], text[:, :24]], 1)
    deviations = torch.cat([audio[:, 24:40], video[:, 24:40], text[:, 24:]], 1)
    torch.testing.assert_close(found.pooled, torch.cat([means, deviations], 1))
    assert found.streams.tolist() == [[n > 0 for n in sizes] for sizes in CLIPS]


@torch.no_grad()
def test_frames_of_several_streams_are_on_one_grid(encoder: PretrainedEncoder) -> None:
    hidden = encoder.encode(batch([clip(*sizes) for sizes in CLIPS]))
    assert encoder.frame_rate == 25 and hidden.fused.lengths.tolist() == [10, 5, 5, 3]
    first, second, third, _ = hidden.fused.split()
    audio = hidden.layers["audio 2"].split()[0]
    torch.testing.assert_close(first[:, :16], audio.unflatten(0, (10, 2)).mean(1))
    assert not second[:, 16:32].any() and second[:, 32:].any()
    assert not third[:, :16].any() and third[:, 16:32].any() and not third[:, 32:].any()


@torch.no_grad()
def test_frames_of_one_stream_keep_its_rate(encoder: PretrainedEncoder) -> None:
    alone = PretrainedEncoder({"audio": encoder.encoders["audio"]})
    hidden = alone.encode({"audio": batch([clip(6_400, 0, 0)])["audio"]})
    assert alone.frame_rate == 50 and alone.reads == ("audio",)
    assert torch.equal(hidden.fused.values, hidden.layers["audio 2"].values)
    assert len(hidden.fused.values) == 20


def test_a_clip_without_any_of_its_streams_is_refused(encoder: PretrainedEncoder) -> None:
    with pytest.raises(ValueError, match="item 1 of the batch has no stream"):
        encoder(batch([clip(*CLIPS[0]), clip(0, 0, 0)]))


@torch.no_grad()
def test_a_memo_changes_no_bit_and_each_encoder_runs_once(encoder: PretrainedEncoder) -> None:
    clips, shared, runs = [clip(*sizes) for sizes in CLIPS], SharedLayers(), list[str]()
    subsets = [
        batch([own for one in clips if any(map(len, (own := only(one, subset)).values()))])
        for subset in stream_subsets()
    ]
    alone = [encoder(inputs) for inputs in subsets]
    hooks = [
        module.register_forward_hook(lambda *_, s=stream: runs.append(s))
        for stream, module in encoder.encoders.items()
    ]
    for inputs, expected in zip(subsets, alone, strict=True):
        found = encoder.pool(encoder.encode(inputs, shared), shared)
        assert torch.equal(found.layers, expected.layers)
        assert torch.equal(found.pooled, expected.pooled)
        assert torch.equal(found.frames.values, expected.frames.values)
    assert sorted(runs) == sorted(KINDS)
    for hook in hooks:
        hook.remove()


def only(one: dict[str, torch.Tensor], subset: tuple[str, ...]) -> dict[str, torch.Tensor]:
    return {s: x if s in subset else x[:0] for s, x in one.items()}
