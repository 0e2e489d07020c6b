"""Picture encoders against transformers: layers of each frame alone, pixels, gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_backbones import tiny_model, write_tiny
from torch import Tensor, nn

from mmembed.backbones.picture import PictureEncoder, pixels_of
from mmembed.backbones.pretrained import build_encoder, digest, load_pretrained
from mmembed.batch import Packed
from mmembed.errors import UsageError

transformers = pytest.importorskip("transformers")

SMALL_DINO = {"size": {"shortest_edge": 36}, "crop_size": {"height": 24, "width": 24}}
KINDS = ("vit", "dinov2", "dinov2_with_registers", "clip_vision_model", "siglip_vision_model")
ALL = pytest.mark.parametrize("kind", KINDS)


def random_model(kind: str) -> Any:
    """Of three blocks, for pictures 32 pixels wide."""
    model = tiny_model(kind)
    if kind.startswith("dinov2"):
        model.config.preprocessing = SMALL_DINO
    return model.eval()


def crops(frames: int, size: int, seed: int = 0, colour: bool = True) -> Tensor:
    """Smooth random pictures, uint8."""
    torch.manual_seed(seed)
    coarse = torch.rand(frames, 3 if colour else 1, 6, 6)
    fine = nn.functional.interpolate(coarse, (size, size), mode="bilinear")
    pictures = (fine * 255).to(torch.uint8)
    return pictures.permute(0, 2, 3, 1).contiguous() if colour else pictures[:, 0]


@ALL
def test_layers_are_those_of_each_frame_alone(kind: str) -> None:
    """Whatever else is in the batch, and beyond the frames that are encoded at once."""
    model = random_model(kind)
    items = [crops(3, 40, 1), crops(0, 40), crops(1, 40, 2), crops(40, 40, 3)]
    with torch.no_grad():
        encoder = PictureEncoder(model).eval()
        layers = encoder(Packed.concatenate(items))
        assert len(layers) == len(encoder.blocks) + 1 == 4
        expected = []
        for frame in torch.cat(items):
            states = model(
                pixel_values=encoder.prepare(frame[None]), output_hidden_states=True
            ).hidden_states
            expected.append(
                [s[0].mean(0) if kind.startswith("siglip") else s[0, 0] for s in states]
            )
    for number, layer in enumerate(layers):
        assert layer.lengths.tolist() == [3, 0, 1, 40]
        theirs = torch.stack([states[number] for states in expected])
        torch.testing.assert_close(layer.values, theirs, atol=1e-5, rtol=0)
    spread = [float(layer.values.std(0).mean()) for layer in layers[1:]]
    assert min(spread) > 1e-3  # frames differ
    nothing = encoder(Packed.concatenate([crops(0, 40)] * 2))
    assert [tuple(layer.values.shape) for layer in nothing] == [(0, 16)] * 4


@ALL
def test_what_is_dropped_changes_no_layer_and_the_rest_learns(kind: str) -> None:
    whole, encoder = random_model(kind), PictureEncoder(random_model(kind)).eval()
    pictures = crops(2, 32)
    pixels = encoder.prepare(pictures)
    theirs = whole(pixel_values=pixels, output_hidden_states=True).hidden_states
    ours = encoder.model(pixel_values=pixels, output_hidden_states=True).hidden_states
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
    layers = encoder(Packed.concatenate([pictures]))
    sum(layer.values.square().sum() for layer in layers).backward()  # type: ignore[union-attr]
    without = [name for name, weight in encoder.named_parameters() if weight.grad is None]
    assert not without


PROCESSORS = {
    "vit": ("ViTImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    "clip_vision_model": ("CLIPImageProcessorPil", {"size": 32, "crop_size": 32}),
    "siglip_vision_model": ("SiglipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
    "dinov2": ("BitImageProcessorPil", SMALL_DINO),
}


@pytest.mark.parametrize("kind", PROCESSORS)
@pytest.mark.parametrize("width", [20, 32, 36, 96])
@pytest.mark.parametrize("colour", [True, False])
def test_pixels_are_those_of_the_image_processor(kind: str, width: int, colour: bool) -> None:
    """Pillow weighs in whole numbers and rounds halves otherwise: a few bytes differ."""
    pytest.importorskip("PIL")
    name, settings = PROCESSORS[kind]
    processor = getattr(transformers, name)(**settings)
    model = random_model(kind)
    model.config.preprocessing = processor.to_dict()
    encoder = PictureEncoder(model)
    pictures = crops(2, width, colour=colour)
    ours = encoder.prepare(pictures)
    rgb = pictures if colour else pictures[..., None].expand(-1, -1, -1, 3)
    theirs = processor(images=[np.asarray(p) for p in rgb], return_tensors="pt").pixel_values
    assert ours.shape == theirs.shape
    bytes_apart = ((ours - theirs) * encoder.std * 255).abs()
    assert float(bytes_apart.max()) < 2.01 and float(bytes_apart.mean()) < 0.15


@pytest.mark.parametrize("kind", PROCESSORS)
def test_without_a_processor_pixels_are_as_published(kind: str) -> None:
    """The published files of the checkpoints that the papers name."""
    published = {
        "vit": (224, 224, 2, [0.5] * 3, [0.5] * 3),
        "clip_vision_model": (224, 224, 3, [0.48145466, 0.4578275, 0.40821073],
                 [0.26862954, 0.26130258, 0.27577711]),
        "siglip_vision_model": (224, 224, 3, [0.5] * 3, [0.5] * 3),
        "dinov2": (256, 224, 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }  # fmt: skip
    config = random_model(kind).config
    config.image_size = 518 if kind == "dinov2" else 224
    assert tuple(pixels_of({}, config).values()) == published[kind]


@pytest.mark.parametrize("kind", [*KINDS, "clip", "siglip"])
def test_a_folder_gives_the_encoder_and_its_pixels(kind: str, tmp_path: Path) -> None:
    """Of a model of pictures and texts, the half that reads pictures."""
    write_tiny(tmp_path, kind)
    wanted = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32},
              "image_mean": [0.1, 0.2, 0.3]}  # fmt: skip
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(wanted))
    found = load_pretrained(str(tmp_path), "video")
    encoder = found.encoder
    assert isinstance(encoder, PictureEncoder) and found.tokenizer is None
    told = encoder.config["preprocessing"]
    assert (told["size"], told["crop_size"], told["image_mean"]) == (40, 32, [0.1, 0.2, 0.3])
    theirs = transformers.AutoModel.from_pretrained(tmp_path).eval()
    theirs = getattr(theirs, "vision_model", theirs)
    pictures = crops(2, 30)
    with torch.no_grad():
        states = theirs(pixel_values=encoder.prepare(pictures), output_hidden_states=True)
        last = states.hidden_states[-1]
        ours = encoder(Packed.concatenate([pictures]))[-1].values
    expected = last.mean(1) if kind.startswith("siglip") else last[:, 0]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    again = build_encoder(json.loads(json.dumps(encoder.config)))
    again.load_state_dict(encoder.state_dict())
    assert digest(again) == found.sha256


def test_what_an_image_processor_may_not_want() -> None:
    model = random_model("vit")
    for wrong in ({"resample": 1}, {"rescale_factor": 1.0}, {"size": 8, "crop_size": 16}):
        with pytest.raises(UsageError, match="vit: its image processor resizes by"):
            pixels_of(wrong, model.config)
    model.config.preprocessing = {"size": 64}
    with pytest.raises(UsageError, match=r"vit: reads pictures 32 pixels wide.* makes 64"):
        PictureEncoder(model)
    plain = pixels_of({"do_normalize": False, "image_mean": [0.3] * 3}, model.config)
    assert plain["image_mean"] == [0.0] * 3 and plain["image_std"] == [1.0] * 3
