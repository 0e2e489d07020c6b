"""Pretrained speech encoders against transformers, which sees one clip at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_backbones import SPEECH, write_tiny
from torch import Tensor

from mmembed.backbones.pretrained import build_encoder, load_pretrained
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import Packed
from mmembed.errors import UsageError

transformers = pytest.importorskip("transformers")

# Sums are taken in another order where items are packed; layers are of the order of 1 to 10.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RATE = 16_000
LENGTHS = (
    400,
    48_077,
    0,
    1,
    16_000,
    399,
    60 * RATE,
    0,
    2 * RATE,
)  # samples: 25 ms to 60 s, and less

VARIANTS = {
    "whisper": ("whisper", {}),
    "wav2vec2": ("wav2vec2", {}),
    "wav2vec2 large": ("wav2vec2", {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}),
    "hubert": ("hubert", {}),
    "hubert large": ("hubert", {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}),
    "data2vec-audio": ("data2vec-audio", {}),
    "wavlm": ("wavlm", {}),
    "wavlm large": ("wavlm", {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}),
}
Reference = Callable[[Tensor], list[Tensor]]


def clips(lengths: tuple[int, ...]) -> list[Tensor]:
    """Noise whose loudness changes, off its level: (N_i,) each."""
    draw = torch.Generator().manual_seed(3)
    return [
        0.02 + 0.2 * torch.randn(n, generator=draw) * torch.linspace(0, 9, n).sin() for n in lengths
    ]


@pytest.fixture(scope="module", params=VARIANTS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind, settings = VARIANTS[request.param]
    return write_tiny(tmp_path_factory.mktemp("model"), kind, **settings)


def whisper_layers(encoder: Any, clip: Tensor) -> list[Tensor]:
    """Whisper's encoder with as many positions as the clip of up to 30 s has."""
    extractor = transformers.WhisperFeatureExtractor(feature_size=encoder.config.num_mel_bins)
    features = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")["input_features"]
    frames = -(-len(clip) // 160)
    positions = encoder.embed_positions
    encoder.embed_positions = torch.nn.Embedding.from_pretrained(
        positions.weight[: -(-frames // 2)]
    )
    vars(encoder.config)["max_source_positions"] = frames / 2  # it asks for twice as many frames
    states = encoder(features[..., :frames], output_hidden_states=True).hidden_states
    encoder.embed_positions = positions
    return [layer[0] for layer in states]


def in_windows(encoder: Any, clip: Tensor) -> list[Tensor]:
    """Above 30 s a window begins each 26 s and hears 2 s more on each side than it has steps of."""
    if len(clip) <= 30 * RATE:
        return whisper_layers(encoder, clip)
    starts = [*range(0, len(clip) - 4 * RATE, 26 * RATE)]
    windows = [whisper_layers(encoder, clip[start : start + 30 * RATE]) for start in starts]
    kept = [
        [
            layer[100 if start else 0 : None if start == starts[-1] else 1400]
            for start, layer in zip(starts, layers, strict=True)
        ]
        for layers in zip(*windows, strict=True)
    ]
    return [torch.cat(parts) for parts in kept]


def sample_layers(model: Any, clip: Tensor) -> list[Tensor]:
    """wav2vec 2.0's kind, behind its feature extractor."""
    normed = getattr(model.config, "feat_extract_norm", "layer") == "layer"
    extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=normed)
    values = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="np")["input_values"]
    values = F.pad(torch.from_numpy(values), (0, max(0, 400 - len(clip))))
    return [layer[0] for layer in model(values, output_hidden_states=True).hidden_states]


def reference_of(folder: Path) -> tuple[Any, Reference]:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    if model.config.model_type == "whisper":
        return model.encoder, lambda clip: in_windows(model.encoder, clip)
    return model, lambda clip: sample_layers(model, clip)


@torch.no_grad()
def test_layers_are_those_of_each_clip_alone(folder: Path):
    encoder = load_pretrained(str(folder), "audio").encoder
    _, reference = reference_of(folder)
    batch = clips(LENGTHS)
    layers = encoder(Packed.concatenate(batch))
    assert len(layers) == len(encoder.blocks) + 1
    for number, clip in enumerate(batch):
        found = [layer.split()[number] for layer in layers]
        assert {len(layer) for layer in found} == {int(layers[0].lengths[number])}
        if not len(clip):
            assert not any(len(layer) for layer in found)
            continue
        for layer, expected in zip(found, reference(clip), strict=True):
            torch.testing.assert_close(layer, expected, **CLOSE)


@torch.no_grad()
def test_a_clip_alone_has_the_layers_that_it_has_in_a_batch(folder: Path):
    encoder = load_pretrained(str(folder)).encoder
    batch = clips((9_000, 0, 30_000, 500))
    together = [layer.split() for layer in encoder(Packed.concatenate(batch))]
    for number, clip in enumerate(batch):
        alone = encoder(Packed.concatenate([clip]))
        for layer, expected in zip(alone, together, strict=True):
            torch.testing.assert_close(layer.values, expected[number], **CLOSE)
            assert layer.values.shape == (int(encoder.steps(layer.lengths.new([len(clip)]))), 16)


def test_sizes_are_said_before_anything_is_encoded(folder: Path):
    encoder = load_pretrained(str(folder)).encoder
    assert (encoder.stream, encoder.width, encoder.rate, len(encoder.blocks)) == (
        "audio",
        16,
        50,
        2,
    )
    # One step each 320 samples; convolutions without padding need 80 more for the first.
    expected = [0, 1, 1, 2, 3] if "whisper" in encoder.config["model_type"] else [0, 1, 1, 1, 2]
    assert encoder.steps(torch.tensor([0, 1, 320, 400, 720])).tolist() == expected


def trained(folder: Path) -> StreamEncoder:
    return load_pretrained(str(folder)).encoder.train()


def test_gradients_are_the_sums_of_those_of_the_clips(folder: Path):
    encoder = load_pretrained(str(folder)).encoder
    model, reference = reference_of(folder)
    batch = clips((9_000, 20_000))
    sum(layer.values.square().sum() for layer in encoder(Packed.concatenate(batch))).backward()
    sum(layer.square().sum() for clip in batch for layer in reference(clip)).backward()
    found = dict(encoder.model.named_parameters())
    compared = [(name, w.grad) for name, w in model.named_parameters() if w.grad is not None]
    assert len(compared) > 30
    for name, expected in compared:
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found[name].grad / scale, expected / scale, rtol=0, atol=1e-4)


def test_nothing_below_the_tuned_blocks_is_kept_for_the_gradient(folder: Path):
    encoder = trained(folder)
    encoder.requires_grad_(False)
    encoder.blocks[-1].requires_grad_(True)
    layers = encoder(Packed.concatenate(clips((4_000, 9_000))))
    assert [layer.values.requires_grad for layer in layers] == [False, False, True]


def test_training_drops_what_the_settings_say_and_nothing_else(tmp_path: Path):
    batch = Packed.concatenate(clips((9_000, 20_000)))
    names = ("hidden_dropout", "activation_dropout", "attention_dropout", "feat_proj_dropout")
    for kind in SPEECH:
        off = dict.fromkeys((*names, "dropout"), 0.0)
        still = load_pretrained(str(write_tiny(tmp_path / kind, kind, **off))).encoder
        expected = still(batch)[-1].values
        torch.testing.assert_close(still.train()(batch)[-1].values, expected)
        for name in ("attention_dropout", "dropout" if kind == "whisper" else "hidden_dropout"):
            path = write_tiny(tmp_path / f"{kind}-{name}", kind, **{**off, name: 0.5})
            dropped = trained(path)(batch)[-1].values
            assert dropped.isfinite().all()
            assert (dropped - expected).abs().max() > 0.01


@torch.no_grad()
def test_a_copy_has_weights_of_its_own(folder: Path):
    encoder = load_pretrained(str(folder)).encoder
    batch = Packed.concatenate(clips((4_000,)))
    expected = encoder(batch)[-1].values
    other = copy.deepcopy(encoder)
    for weight in encoder.blocks.parameters():
        weight.zero_()
    torch.testing.assert_close(other(batch)[-1].values, expected)
    assert (encoder(batch)[-1].values - expected).abs().max() > 0.01


@torch.no_grad()
def test_half_precision_gives_much_the_same_layers(folder: Path):
    """Weights at random enlarge what is rounded, 1 in 256, above all in deep convolutions."""
    encoder = load_pretrained(str(folder)).encoder
    batch = Packed.concatenate(clips((9_000, 20_000)))
    with torch.autocast("cpu", torch.bfloat16):
        halves = encoder(batch)
    for half, full in zip(halves, encoder(batch), strict=True):
        error = (half.values.float() - full.values).square().mean().sqrt()
        assert error < 0.5 * full.values.std()


@torch.no_grad()
def test_whisper_with_silence_behind_clips_is_its_usual_use(tmp_path: Path):
    encoder: Any = load_pretrained(str(write_tiny(tmp_path, "whisper", num_mel_bins=128))).encoder
    encoder.pad_to = 30
    model = transformers.AutoModel.from_pretrained(tmp_path).eval()
    extractor = transformers.WhisperFeatureExtractor(feature_size=128)
    batch = clips((20_000, 1, 479_900))
    layers = encoder(Packed.concatenate(batch))
    for number, clip in enumerate(batch):
        features = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt")
        expected = model.encoder(**features, output_hidden_states=True).hidden_states
        for layer, states in zip(layers, expected, strict=True):
            steps = -(-len(clip) // 320)
            torch.testing.assert_close(layer.split()[number], states[0, :steps], **CLOSE)
    assert build_encoder(encoder.config).pad_to == 30
    with pytest.raises(UsageError, match="pad_to 31: must be"):
        encoder.pad_to = 31


def test_whisper_with_other_positions_is_refused(tmp_path: Path):
    write_tiny(tmp_path, "whisper", max_source_positions=750)
    with pytest.raises(UsageError, match="has 750 positions"):
        load_pretrained(str(tmp_path))


@torch.no_grad()
@pytest.mark.parametrize("normalised", [False, True])
def test_clips_are_normalised_where_the_preprocessor_says_so(tmp_path: Path, normalised: bool):
    write_tiny(tmp_path, "wavlm", feat_extract_norm="layer")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=normalised).save_pretrained(tmp_path)
    found = load_pretrained(str(tmp_path)).encoder
    clip = clips((9_000,))[0]
    soft, loud = (found(Packed.concatenate([part]))[-1].values for part in (clip, 4 * clip))
    assert ((soft - loud).abs().max() < 1e-3) == normalised


@torch.no_grad()
def test_offset_and_loudness_change_nothing_where_the_first_convolution_is_normalised(
    tmp_path: Path,
):
    """So it does not matter what base models say of normalisation."""
    encoder = load_pretrained(str(write_tiny(tmp_path, "wav2vec2", conv_bias=False))).encoder
    clip = clips((9_000,))[0]
    soft, loud = (encoder(Packed.concatenate([part]))[-1].values for part in (clip, 4 * clip + 0.1))
    torch.testing.assert_close(soft, loud, rtol=0, atol=0.01)
