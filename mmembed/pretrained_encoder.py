"""Pretrained encoders of one or several streams, side by side and untrained by us, as one encoder.

It answers as `mmembed.encoder.Encoder` does, so that clips are embedded alike. Nothing mixes the
streams: each keeps its own layers, width and rate.

- Layers: all of each stream. A narrower layer is filled with zeros to the width of the widest.
- Frames: of one stream its last layer, at its own rate; of several their last layers side by side
  on the frame grid of 25 Hz (the mean of the steps in a frame; a token is spread over its share of
  the clip).
- Pooled: mean, then standard deviation, of the last layer of each stream in its own steps.

What a stream that a clip lacks would have is zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from mmembed.backbones.picture import crops_read_by
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import (
    Encoding,
    Packed,
    Padded,
    SharedLayers,
    check_present,
    frame_grid,
    zero_filled,
)
from mmembed.config import Hz
from mmembed.encoder import FRAME_RATE, EncoderOutput
from mmembed.features.video import CropForm
from mmembed.nn.alignment import spread_tokens, to_frames
from mmembed.nn.transformer import join_pooled, mean_and_std, stack_layers
from mmembed.streams import STREAMS


class PretrainedEncoder(nn.Module):
    """See the module's docstring.

    Args:
        streams: stream -> its encoder, at least one.
    """

    def __init__(self, streams: Mapping[str, StreamEncoder]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict({s: streams[s] for s in STREAMS if s in streams})

    @property
    def reads(self) -> tuple[str, ...]:
        """The streams that it reads."""
        return tuple(self.streams)

    @property
    def layer_width(self) -> int:
        """D of the widest layer."""
        return max(self._encoder(stream).width for stream in self.streams)

    @property
    def frame_width(self) -> int:
        """Width of the frames: of all streams together."""
        return sum(self._encoder(stream).width for stream in self.streams)

    @property
    def frame_rate(self) -> Hz:
        """Frames a second."""
        first, *others = self.streams
        return FRAME_RATE if others else self._encoder(first).rate or FRAME_RATE

    @property
    def reads_samples(self) -> bool:
        """Whether the audio stream is read as samples, not as log-mel."""
        return True

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers in order; layer 0 of a stream is what its first block reads."""
        return tuple(
            f"{stream} {depth}"
            for stream in self.streams
            for depth in range(len(self._encoder(stream).blocks) + 1)
        )

    @property
    def pooled_layers(self) -> tuple[str, ...]:
        """The layers whose mean and standard deviation are a clip's one vector: of each stream the
        last.
        """
        return tuple(f"{s} {len(self._encoder(s).blocks)}" for s in self.streams)

    @property
    def crops(self) -> CropForm:
        """The form of face crops to make of media."""
        return crops_read_by(self.backbone("video"))

    @property
    def any_crops(self) -> bool:
        """Whether it also reads crops of other forms: a pretrained encoder resizes them."""
        return True

    def layer_rate(self, name: str) -> Hz:
        """Steps a second of a layer; 0 for text."""
        return self._encoder(name.partition(" ")[0]).rate

    def forward(self, inputs: Mapping[str, Packed | Padded]) -> Encoding:
        """Embed a batch; inputs as in `StreamEncoder`.

        Raises:
            ValueError: an item has no stream at all.
        """
        return self.pool(self.encode(inputs))

    def pool(self, hidden: EncoderOutput, shared: SharedLayers | None = None) -> Encoding:
        """Pool the output of `encode`, called with the same `shared`, to an embedding an item."""
        shared = SharedLayers() if shared is None else shared
        pooled = {}
        for name, layer in hidden.layers.items():
            every = bool(hidden.present[:, STREAMS.index(name.partition(" ")[0])].all())
            pool = partial(mean_and_std, layer)
            pooled[name] = shared.once(("pooled", name), pool) if every else pool()
        return Encoding(
            frames=hidden.fused.pad(),
            pooled=join_pooled([pooled[name] for name in self.pooled_layers]),
            layers=stack_layers([*pooled.values()]),
            streams=hidden.present,
            frame_rate=self.frame_rate,
        )

    def encode(
        self, inputs: Mapping[str, Packed | Padded], shared: SharedLayers | None = None
    ) -> EncoderOutput:
        """The outputs of all layers; for `shared` see `mmembed.encoder.Encoder.encode`."""
        shared = SharedLayers() if shared is None else shared
        held = {stream: inputs[stream].pack() for stream in self.streams if stream in inputs}
        none = torch.zeros_like(next(iter(inputs.values())).lengths)
        lengths = {s: held[s].lengths if s in held else none for s in STREAMS}
        present = torch.stack([lengths[stream] > 0 for stream in STREAMS], 1)
        check_present(present, self.streams)
        grid = frame_grid({**lengths, "audio": self._frames(lengths["audio"])})
        layers: dict[str, Packed] = {}
        frames: list[Tensor] = []
        fused: Packed | None = None
        for stream in self.streams:
            encoder = self._encoder(stream)
            has = lengths[stream] > 0
            found: list[Packed] | None = None
            if bool(has.any()):
                kept = Packed(held[stream].values, held[stream].lengths[has])
                found = shared.once(stream, partial(encoder, kept))
            for depth in range(len(encoder.blocks) + 1):
                own = None if found is None else found[depth]
                layers[f"{stream} {depth}"] = self._filled(own, encoder.width, has)
            if len(self.streams) == 1:
                assert found is not None
                fused = found[-1]
            else:
                last = None if found is None else found[-1]
                frames.append(self._on_grid(stream, last, has, grid))
        if fused is None:
            fused = Packed(torch.cat(frames, 1), grid)
        nothing = Packed(fused.values[:0], torch.zeros(0, dtype=torch.int64))
        return EncoderOutput(fused, None, layers, nothing, fused.values.new_zeros(0), present)

    @property
    def encoders(self) -> dict[str, StreamEncoder]:
        """Stream -> its encoder."""
        return {stream: self._encoder(stream) for stream in self.streams}

    def backbone(self, stream: str) -> StreamEncoder | None:
        """The encoder of a stream; None = the stream is not read."""
        return self._encoder(stream) if stream in self.streams else None

    def _frames(self, samples: Tensor) -> Tensor:
        """(B,) lengths of sound to frames."""
        if "audio" not in self.streams:
            return samples
        encoder = self._encoder("audio")
        return -(-encoder.steps(samples) // round(encoder.rate / FRAME_RATE))

    def _encoder(self, stream: str) -> StreamEncoder:
        return cast(StreamEncoder, self.streams[stream])

    @staticmethod
    def _filled(own: Packed | None, width: int, has: Tensor) -> Packed:
        """A layer with one step of zeros for each item that lacks the stream."""
        if own is None:
            return Packed(torch.zeros(len(has), width), torch.ones_like(has, dtype=torch.int64))
        return zero_filled(own, has)

    def _on_grid(self, stream: str, last: Packed | None, has: Tensor, grid: Tensor) -> Tensor:
        """(N, D) on the frame grid, zeros where an item lacks the stream."""
        encoder = self._encoder(stream)
        if last is None:
            return torch.zeros(int(grid.sum()), encoder.width)
        aligned = (
            spread_tokens(last, grid[has])
            if stream == "text"
            else to_frames(last, grid[has], round(encoder.rate / FRAME_RATE))
        )
        rows = has.repeat_interleave(grid).nonzero()[:, 0].to(aligned.device)
        whole = aligned.new_zeros(int(grid.sum()), encoder.width)
        return whole.index_copy(0, rows, aligned)
