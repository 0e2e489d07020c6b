"""A pretrained encoder as the front end of a stream of ours."""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.backbones.lora import add_lora
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import Packed, Padded, Steps
from mmembed.errors import UsageError
from mmembed.nn.alignment import to_frames, to_padded_frames
from mmembed.nn.transformer import LayerWeights
from mmembed.settings.encoder import BackboneConfig

FRAME_RATE: Final = 25  # Hz, of the encoder behind


class PretrainedFrontend(nn.Module):
    """Layers of a pretrained encoder, mixed by learned weights, on the frame grid, at width D.

    Each layer is normalised before it is mixed (as in SUPERB's implementation): else the layer of
    the largest values would be all that is seen.

    Args:
        backbone: the pretrained encoder; what of it is trained is set here.
        config: see `BackboneConfig`.
        width: D.

    Raises:
        UsageError: the backbone has no such blocks, or steps that fit no frame grid of 25 Hz.
    """

    def __init__(self, backbone: StreamEncoder, config: BackboneConfig, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        if backbone.rate not in (0, FRAME_RATE, 2 * FRAME_RATE):
            raise UsageError(f"{config.name}: has {backbone.rate:g} steps a second, not 25 or 50")
        tune(backbone, config)
        self.layers = LayerWeights(len(backbone.blocks) + 1)
        self.project = nn.Linear(backbone.width, width)

    @property
    def trained(self) -> bool:
        """Whether any of the backbone is trained."""
        return self.config.tuned != "nothing"

    def train(self, mode: bool = True) -> PretrainedFrontend:
        """What is frozen has no dropout either."""
        super().train(mode)
        if not self.trained:
            self.backbone.eval()
        return self

    def frames(self, inputs: Packed | Padded) -> Tensor:
        """(B,) frames at 25 Hz of each item; tokens of text."""
        steps = inputs.lengths
        if not self._are_layers(inputs):
            hop = self.backbone.padded_form.hop if isinstance(inputs, Padded) else 1
            steps = self.backbone.steps(steps * hop)
        ratio = round(self.backbone.rate / FRAME_RATE) or 1
        return -(-steps // ratio)

    def _are_layers(self, inputs: Packed | Padded) -> bool:
        """Whether inputs are layers (N, L + 1, D) that were computed before."""
        values = inputs.values
        packed = isinstance(inputs, Packed)
        return packed and values.ndim == 3 and values.is_floating_point()

    def forward(self, inputs: Steps) -> tuple[list[Steps], Steps]:
        """The backbone's layers (N', D') in its own steps, and the frames (N, D).

        Args:
            inputs: what the backbone reads, or its layers (N', L + 1, D') where these were
                computed before (`mmembed extract --granularity steps`). Padded ones have the form
                that `StreamEncoder.padded` reads.
        """
        layers: list[Steps]
        if self._are_layers(inputs):
            layers = [inputs.with_values(values) for values in inputs.values.unbind(1)]
        else:
            encode: Any = self.backbone.padded if isinstance(inputs, Padded) else self.backbone
            layers = encode(inputs)
        weights = self.layers.weights
        mixed = torch.zeros_like(layers[0].values)
        for weight, layer in zip(weights, layers, strict=True):
            mixed = mixed + weight * F.layer_norm(layer.values, layer.values.shape[-1:])
        x = layers[0].with_values(self.project(mixed))
        if self.backbone.rate:
            grid = self.frames(inputs)
            ratio = round(self.backbone.rate / FRAME_RATE)
            if isinstance(x, Padded):
                count = (x.values.shape[1] + ratio - 1) // ratio
                frames = to_padded_frames(x, count, ratio)
            else:
                frames = to_frames(x, grid, ratio)
            x = type(inputs)(frames, grid)
        return layers, x


def tune(backbone: StreamEncoder, config: BackboneConfig) -> None:
    """Set which parameters are trained, and add LoRA matrices where they are.

    Raises:
        UsageError: there are fewer blocks than `top`.
    """
    backbone.requires_grad_(config.tuned == "all")
    if config.tuned == "top":
        if not 0 < config.top <= len(backbone.blocks):
            raise UsageError(
                f"{config.name}: has {len(backbone.blocks)} blocks, {config.top} cannot be trained"
            )
        for block in backbone.blocks[-config.top :]:
            block.requires_grad_(True)
    if config.tuned == "lora":
        add_lora(backbone.blocks, config.lora_rank)
