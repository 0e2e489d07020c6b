"""Picture encoders against transformers: layers of each frame alone, pixels, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmembed.backbones.picture import PictureEncoder, pixels_of
from mmembed.batch import Packed
from mmembed.errors import UsageError

transformers = pytest.importorskip("transformers")

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
MODELS = {
    "vit": ("ViTConfig", "ViTModel"),
    "dinov2": ("Dinov2Config", "Dinov2Model"),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", "Dinov2WithRegistersModel"),
    "clip": ("CLIPVisionConfig", "CLIPVisionModel"),
    "siglip": ("SiglipVisionConfig", "SiglipVisionModel"),
}
SMALL_DINO = {"size": {"shortest_edge": 36}, "crop_size": {"height": 24, "width": 24}}
ALL = pytest.mark.parametrize("kind", MODELS)


def random_model(kind: str) -> nn.Module:
    """Of three blocks, for pictures 32 pixels wide."""
    config_name, model_name = MODELS[kind]
    torch.manual_seed(0)
    config = getattr(transformers, config_name)(**SIZES)
    if kind.startswith("dinov2"):
        config.preprocessing = SMALL_DINO
    model = getattr(transformers, model_name)(config)
    assert isinstance(model, nn.Module)
    with torch.no_grad():  # as if trained: at first, some are zero and blocks do next to nothing
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape))
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
            expected.append([s[0].mean(0) if kind == "siglip" else s[0, 0] for s in states])
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
    "clip": ("CLIPImageProcessorPil", {"size": 32, "crop_size": 32}),
    "siglip": ("SiglipImageProcessorPil", {"size": {"height": 32, "width": 32}}),
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
        "clip": (224, 224, 3, [0.48145466, 0.4578275, 0.40821073],
                 [0.26862954, 0.26130258, 0.27577711]),
        "siglip": (224, 224, 3, [0.5] * 3, [0.5] * 3),
        "dinov2": (256, 224, 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    }  # fmt: skip
    config = getattr(transformers, MODELS[kind][0])(image_size=518 if kind == "dinov2" else 224)
    assert tuple(pixels_of({}, config).values()) == published[kind]


def test_the_config_makes_the_same_encoder_again() -> None:
    encoder = PictureEncoder(random_model("dinov2"))
    assert encoder.config["preprocessing"]["crop_size"] == 24
    config = transformers.AutoConfig.for_model(**encoder.config)
    again = PictureEncoder(transformers.AutoModel.from_config(config))
    again.load_state_dict(encoder.state_dict())
    inputs = Packed.concatenate([crops(2, 30)])
    for one, other in zip(encoder.eval()(inputs), again.eval()(inputs), strict=True):
        assert torch.equal(one.values, other.values)


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
