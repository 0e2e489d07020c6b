"""Picture encoders: face crops in, one vector for each frame and layer out.

ViT, DINOv2, and the picture halves of CLIP and SigLIP. Every frame is encoded by itself. Its vector
is the state of the class token; SigLIP has none, and there it is the mean over the patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.backbones.stream import PaddedForm, StreamEncoder
from mmembed.batch import Packed, Padded
from mmembed.config import Hz
from mmembed.errors import UsageError
from mmembed.features.video import SMALL_GREY, CropForm

FRAME_RATE: Final[Hz] = 25
FRAMES: Final = 32  # encoded at once: bounds memory, whatever the length of a clip

HALF: Final = (0.5, 0.5, 0.5)
IMAGENET: Final = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP: Final = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
BILINEAR, BICUBIC = 2, 3  # as image processors number them


class PictureEncoder(StreamEncoder):
    """See the module's docstring.

    Args:
        model: of transformers. How it wants its pixels is `preprocessing` of its config, see
            `pixels_of`; what that lacks is as its architecture was published.

    Raises:
        UsageError: the model wants pictures of another size than its pixels have.
    """

    stream = "video"
    preprocessing: ClassVar[tuple[str, ...]] = (
        "size", "crop_size", "do_center_crop", "resample", "rescale_factor", "do_normalize",
        "image_mean", "image_std",
    )  # fmt: skip

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config: Any = model.config
        self.pixels = pixels_of(getattr(config, "preprocessing", {}), config)
        config.preprocessing = self.pixels  # readers of the config need no defaults
        kind, width = config.model_type, self.pixels["crop_size"]
        self.by_patches = kind.startswith("siglip")
        if width != config.image_size and not kind.startswith("dinov2"):  # it reads any size
            raise UsageError(
                f"{kind}: reads pictures {config.image_size} pixels wide, but its image processor "
                f"makes {width}"
            )
        _drop_unread(model)
        self.mean: Tensor
        self.std: Tensor
        for name in ("mean", "std"):
            values = torch.tensor(self.pixels[f"image_{name}"]).view(3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    @property
    def width(self) -> int:
        """See `StreamEncoder`."""
        return int(self.model.config.hidden_size)

    @property
    def rate(self) -> Hz:
        """See `StreamEncoder`."""
        return FRAME_RATE

    @property
    def crops(self) -> CropForm:
        """The crops that it sees without resizing; it reads those of any form."""
        return CropForm(int(self.pixels["size"]), colour=True)

    @property
    def blocks(self) -> nn.ModuleList:
        """See `StreamEncoder`."""
        stack: Any = getattr(self.model, "encoder", self.model)
        found: nn.ModuleList = stack.layer if hasattr(stack, "layer") else stack.layers
        return found

    def steps(self, lengths: Tensor) -> Tensor:
        """One a frame."""
        return lengths

    def forward(self, inputs: Packed) -> list[Packed]:
        """See `StreamEncoder`."""
        if not len(inputs.values):
            nothing = inputs.with_values(self.mean.new_zeros(0, self.width))
            return [nothing] * (len(self.blocks) + 1)
        chunks = [self._vectors(frames) for frames in torch.split(inputs.values, FRAMES)]
        return [inputs.with_values(torch.cat(layer)) for layer in zip(*chunks, strict=True)]

    @property
    def padded_form(self) -> PaddedForm:
        """See `StreamEncoder`: crops of one size, which are not resized."""
        size = self.crops.size
        return PaddedForm(
            f"mmembed.features.video.face_crops: RGB face crops of the speaker, {size} pixels wide",
            dtype="uint8",
            shape=(size, size, 3),
            rate=FRAME_RATE,
            values=256,
        )

    def padded(self, inputs: Padded) -> list[Padded]:
        """See `StreamEncoder`."""
        layers = self._vectors(inputs.values.flatten(0, 1))
        shape = (*inputs.values.shape[:2], self.width)
        return [inputs.with_values(layer.view(shape)) for layer in layers]

    def _vectors(self, frames: Tensor) -> list[Tensor]:
        """Frames (n, S, S) or (n, S, S, 3) to L + 1 layers (n, D)."""
        seen = self.model(pixel_values=self.prepare(frames), output_hidden_states=True)
        states = seen.hidden_states
        return [layer.mean(1) if self.by_patches else layer[:, 0] for layer in states]

    def prepare(self, frames: Tensor) -> Tensor:
        """Crops to what the model reads, as its image processor does.

        Args:
            frames: (n, S, S) grey or (n, S, S, 3) RGB, uint8.

        Returns:
            (n, 3, P, P) float32.
        """
        frames = frames[:, None] if frames.ndim == 3 else frames.permute(0, 3, 1, 2)
        size, crop = self.pixels["size"], self.pixels["crop_size"]
        values = frames.to(self.mean)
        if frames.shape[-2:] != (size, size):
            mode = "bicubic" if self.pixels["resample"] == BICUBIC else "bilinear"
            for shape in ((len(frames[0, 0]), size), (size, size)):
                # Image processors round to bytes after the rows, and again after the columns.
                values = F.interpolate(values, shape, mode=mode, antialias=True)
                values = values.round().clamp(0, 255)
        edge = (size - crop) // 2
        values = values[..., edge : edge + crop, edge : edge + crop]
        return (values / 255 - self.mean) / self.std


def crops_read_by(backbone: StreamEncoder | None) -> CropForm:
    """The form of face crops to make for a video stream; without a backbone, that of ours."""
    return backbone.crops if isinstance(backbone, PictureEncoder) else SMALL_GREY


def pixels_of(preprocessing: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """How a model wants its pixels.

    Args:
        preprocessing: from its preprocessor_config.json, or what this returned.
        config: of the model.

    Returns:
        size, the width in pixels that a crop is brought to; crop_size, the width of the middle that
        is kept; resample, 2 (bilinear) or 3 (bicubic); image_mean and image_std of the three
        colours, where pixels lie in [0, 1].

    Raises:
        UsageError: it wants what we do not do.
    """
    kind, given = config.model_type, dict(preprocessing)
    dino = kind.startswith("dinov2")
    mean, std = IMAGENET if dino else CLIP if kind.startswith("clip") else (HALF, HALF)
    if not given.get("do_normalize", True):
        given |= {"image_mean": (0.0, 0.0, 0.0), "image_std": (1.0, 1.0, 1.0)}
    size = _edge(given.get("size", 256 if dino else config.image_size))
    cuts = given.get("do_center_crop", dino or "crop_size" in given)
    crop = _edge(given.get("crop_size", 224 if dino else size)) if cuts else size
    resample = given.get("resample", BILINEAR if kind == "vit" else BICUBIC)
    scale = given.get("rescale_factor", 1 / 255)
    if resample not in (BILINEAR, BICUBIC) or abs(scale * 255 - 1) > 1e-3 or crop > size:
        raise UsageError(
            f"{kind}: its image processor resizes by {resample} to {size}, keeps {crop} and "
            f"scales by {scale}; we know resizing by 2 or 3, keeping no more, and scaling by 1/255"
        )
    return {
        "size": size,
        "crop_size": crop,
        "resample": resample,
        "image_mean": list(given.get("image_mean", mean)),
        "image_std": list(given.get("image_std", std)),
    }


def _edge(size: int | Mapping[str, int]) -> int:
    """Of a square in pixels, in any of the ways that image processors write it."""
    if isinstance(size, int):
        return size
    return int(size["shortest_edge"] if "shortest_edge" in size else size["height"])


def _drop_unread(model: Any) -> None:
    """Take away the parts behind the last layer: their weights would never get a gradient."""
    for name in ("layernorm", "post_layernorm"):
        if hasattr(model, name):
            setattr(model, name, nn.Identity())
    model.pooler = None
    if hasattr(model, "head"):
        model.use_head = False
        del model.head
    if getattr(model.embeddings, "mask_token", None) is not None:
        model.embeddings.mask_token = None
