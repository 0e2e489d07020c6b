"""The encoder for one stream subset, in tensors whose shapes depend on no length.

`Encoder` packs: shapes, loops and branches follow the lengths of the items, which neither
torch.export nor ONNX can hold. Here the same layers run on padded steps, for items that all have
the same streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import STREAMS, Padded
from mmembed.encoder import Encoder, stack_layers
from mmembed.nn.transformer import mean_and_std

OUTPUTS: Final = ("pooled", "frames", "frame_lengths", "layers")


def lengths_name(stream: str) -> str:
    """Name of the input with the lengths of a stream."""
    return f"{stream}_lengths"


class TraceableEncoder(nn.Module):
    """Shares all layers and weights with the encoder that it is made of.

    Args:
        encoder: in evaluation mode.
        streams: which every item has, in the order of `STREAMS`.

    Raises:
        UsageError: a pretrained front end of these streams has no layers on padded steps.
    """

    def __init__(self, encoder: Encoder, streams: Sequence[str]) -> None:
        super().__init__()
        self.encoder = encoder
        self.streams = tuple(streams)
        self.longest = dict.fromkeys(self.streams, 0)
        for stream in self.streams:
            if (backbone := encoder.backbone(stream)) is not None:
                self.longest[stream] = backbone.padded_form.longest

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            inputs: for each stream its values as in `Batch.inputs`, or in the `padded_form` of its
                pretrained front end, anything in the padding, and under `lengths_name` its lengths
                (B,) int64.

        Returns:
            pooled (B, 2 D), frames (B, T, D) with zeros from frame_lengths (B,) int64 on, and
            layers (B, L, 2 D), see `Encoding`; NaN for an item with a length that is not between 1
            and what its tensor holds and its front end reads.
        """
        streams = {s: Padded(inputs[s], inputs[lengths_name(s)]).zeroed() for s in self.streams}
        possible = torch.stack(
            [(x.lengths > 0) & (x.lengths <= x.values.shape[1]) for x in streams.values()]
            + [x.lengths <= self.longest[s] for s, x in streams.items() if self.longest[s]]
        ).all(0)
        if "audio" in streams:  # one frame more: torch.export asks for two at least
            values = F.pad(streams["audio"].values, (0, 0, 0, 4))
            streams["audio"] = streams["audio"].with_values(values)
        first = self.streams[0]
        grid = self.encoder.lengths({first: streams[first]})[first]
        layers: dict[str, Tensor] = {}
        paths: dict[str, Padded] = {}
        for stream in STREAMS:
            names = self.encoder.own_layer_names(stream)
            if stream in streams:
                query = paths.get("audio")
                own, paths[stream], _ = self.encoder.encode_stream(
                    stream, streams[stream], grid, query
                )
                layers |= zip(names, map(mean_and_std, own), strict=True)
                layers[f"{stream} aligned"] = mean_and_std(paths[stream])
            else:
                like = paths.get("audio", streams[self.streams[0]])
                absent = self.encoder.absent[stream].expand(*like.values.shape[:2], -1)
                paths[stream] = Padded(absent, grid)
                same = mean_and_std(paths[stream])
                layers |= dict.fromkeys((*names, f"{stream} aligned"), same)
                layers |= self._zeros(stream, same)
        fused, _ = self.encoder.fuse({stream: path.values for stream, path in paths.items()})
        frames = Padded(fused, grid).zeroed()
        layers["fused"] = mean_and_std(frames)
        stacked = stack_layers([layers[name] for name in self.encoder.layer_names])
        # Plain numbers for a length that cannot be would go unnoticed.
        impossible = ~possible[:, None, None]
        stacked, values = (x.masked_fill(impossible, torch.nan) for x in (stacked, frames.values))
        pooled = layers["fused"].masked_fill(impossible[:, 0], torch.nan)
        return dict(zip(OUTPUTS, (pooled, values, grid, stacked), strict=True))

    def _zeros(self, stream: str, like: Tensor) -> dict[str, Tensor]:
        """Mean and standard deviation of the layers of a backbone whose stream is absent."""
        backbone = self.encoder.backbone(stream)
        if backbone is None:
            return {}
        zeros = like.new_zeros(1, 2 * backbone.width).expand(like.shape[0], -1)
        return dict.fromkeys(self.encoder.backbone_names(stream), zeros)
