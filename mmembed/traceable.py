"""An encoder for one stream subset, in tensors whose shapes depend on no length.

`Encoder` and `PretrainedEncoder` pack: shapes, loops and branches follow the lengths of the items,
which neither torch.export nor ONNX can hold. Here the same layers run on padded steps, for items
that all have the same streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import Padded
from mmembed.encoder import FRAME_RATE, Encoder
from mmembed.nn.alignment import spread_padded_tokens, to_padded_frames
from mmembed.nn.transformer import join_pooled, mean_and_std, stack_layers
from mmembed.pretrained_encoder import PretrainedEncoder
from mmembed.streams import STREAMS

OUTPUTS: Final = ("pooled", "frames", "frame_lengths", "layers")


def lengths_name(stream: str) -> str:
    """Name of the input with the lengths of a stream."""
    return f"{stream}_lengths"


class Traceable(nn.Module, ABC):
    """Shares all layers and weights with the encoder that it is made of.

    Args:
        encoder: in evaluation mode.
        streams: which every item has, in the order of `STREAMS`.

    Raises:
        UsageError: a pretrained encoder of these streams has no layers on padded steps.
    """

    def __init__(self, encoder: Encoder | PretrainedEncoder, streams: Sequence[str]) -> None:
        super().__init__()
        self.encoder: Any = encoder
        self.streams = tuple(streams)
        self.longest = dict.fromkeys(self.streams, 0)
        for stream in self.streams:
            if (backbone := encoder.backbone(stream)) is not None:
                self.longest[stream] = backbone.padded_form.longest

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Embed a batch.

        Args:
            inputs: for each stream its values as in `Batch.inputs`, or in the `padded_form` of its
                pretrained encoder, anything in the padding, and under `lengths_name` its lengths
                (B,) int64.

        Returns:
            pooled (B, 2 D), frames (B, T, D) with zeros from frame_lengths (B,) int64 on, and
            layers (B, L, 2 D), see `Encoding`; NaN for an item with a length that is not between 1
            and what its tensor holds and its pretrained encoder reads.
        """
        streams = {s: Padded(inputs[s], inputs[lengths_name(s)]).zeroed() for s in self.streams}
        possible = torch.stack(
            [(x.lengths > 0) & (x.lengths <= x.values.shape[1]) for x in streams.values()]
            + [x.lengths <= self.longest[s] for s, x in streams.items() if self.longest[s]]
        ).all(0)
        if "audio" in streams:  # one frame more: torch.export asks for two at least
            values = F.pad(streams["audio"].values, (0, 0, 0, 4))
            streams["audio"] = streams["audio"].with_values(values)
        pooled, frames, layers = self.encode(streams)
        frames = frames.zeroed()
        stacked = stack_layers([layers[name] for name in self.encoder.layer_names])
        # Plain numbers for a length that cannot be would go unnoticed.
        impossible = ~possible[:, None, None]
        stacked, values = (x.masked_fill(impossible, torch.nan) for x in (stacked, frames.values))
        pooled = pooled.masked_fill(impossible[:, 0], torch.nan)
        return dict(zip(OUTPUTS, (pooled, values, frames.lengths, stacked), strict=True))

    @abstractmethod
    def encode(self, streams: Mapping[str, Padded]) -> tuple[Tensor, Padded, Mapping[str, Tensor]]:
        """Streams that all items have, zeros in the padding, to pooled (B, 2 D), frames (B, T, D)
        and the mean and standard deviation (B, 2 D') of every layer.
        """

    @staticmethod
    def zeros(streams: Mapping[str, Padded], width: int) -> Tensor:
        """(B, 2 D) mean and standard deviation of a layer of a stream that no item has."""
        values = next(iter(streams.values())).values
        return torch.zeros(1, 2 * width, device=values.device).expand(values.shape[0], -1)


class TraceableEncoder(Traceable):
    """Of our `Encoder`."""

    def encode(self, streams: Mapping[str, Padded]) -> tuple[Tensor, Padded, Mapping[str, Tensor]]:
        """See `Traceable`."""
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
                like = paths.get("audio", streams[first])
                absent = self.encoder.absent[stream].expand(*like.values.shape[:2], -1)
                paths[stream] = Padded(absent, grid)
                same = mean_and_std(paths[stream])
                layers |= dict.fromkeys((*names, f"{stream} aligned"), same)
                if (backbone := self.encoder.backbone(stream)) is not None:
                    zeros = self.zeros(streams, backbone.width)
                    layers |= dict.fromkeys(self.encoder.backbone_names(stream), zeros)
        fused, _ = self.encoder.fuse({stream: path.values for stream, path in paths.items()})
        frames = Padded(fused, grid)
        layers["fused"] = mean_and_std(frames)
        return layers["fused"], frames, layers


class TraceablePretrained(Traceable):
    """Of a `PretrainedEncoder`."""

    def encode(self, streams: Mapping[str, Padded]) -> tuple[Tensor, Padded, Mapping[str, Tensor]]:
        """See `Traceable`."""
        encoders = self.encoder.encoders
        own = {stream: encoders[stream].padded(x) for stream, x in streams.items()}
        layers: dict[str, Tensor] = {}
        for stream, encoder in encoders.items():
            for depth in range(len(encoder.blocks) + 1):
                layers[f"{stream} {depth}"] = (
                    mean_and_std(own[stream][depth])
                    if stream in own
                    else self.zeros(streams, encoder.width)
                )
        pooled = join_pooled([layers[name] for name in self.encoder.pooled_layers])
        first = self.streams[0]
        last = own[first][-1]
        if len(encoders) == 1:
            return pooled, last, layers
        ratio = round(encoders[first].rate / FRAME_RATE) or 1  # tokens are frames of their own
        grid = -(-last.lengths // ratio)
        count = (last.values.shape[1] + ratio - 1) // ratio
        parts = []
        for stream, encoder in encoders.items():
            if stream not in own:
                zeros = self.zeros(streams, encoder.width)[:, None, : encoder.width]
                parts.append(zeros.expand(-1, count, -1))
            elif stream == "text":
                parts.append(spread_padded_tokens(own[stream][-1], grid, count))
            else:
                ratio = round(encoder.rate / FRAME_RATE)
                parts.append(to_padded_frames(own[stream][-1], count, ratio))
        return pooled, Padded(torch.cat(parts, 2), grid), layers


def traceable(encoder: Encoder | PretrainedEncoder, streams: Sequence[str]) -> Traceable:
    """The one that fits; see `Traceable`."""
    made = TraceableEncoder if isinstance(encoder, Encoder) else TraceablePretrained
    return made(encoder, streams)
