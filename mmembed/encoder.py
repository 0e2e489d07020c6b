"""The encoder: audio, face video and text of one person, any of them missing, to one embedding.

Each stream has its own front end and transformer. All streams are then aligned to one frame grid
of 25 Hz, that of the audio stream (the "anchor"): cross-modal blocks with audio as query bring
video and text onto it (Khare, Parthasarathy and Sundaram 2020, arXiv 2009.05019; the block is that
of MulT). The three sequences are summed with learned weights that start at 0.4, 0.4, 0.2.

A stream that an item lacks is replaced on the frame grid by the learned missing-stream embedding of
that stream. Without audio, the grid is that of the video, or that of the text with one frame a
token. So each of the seven subsets of streams has an embedding, and the tensor of a missing stream
has no influence.

Speech recognition must not see the text: `EncoderOutput.audio_visual` is the sum without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from mmembed.backbones.picture import crops_read_by
from mmembed.backbones.pretrained_frontend import PretrainedFrontend
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import (
    Encoding,
    Packed,
    Padded,
    SharedLayers,
    Steps,
    check_present,
    frame_grid,
    zero_filled,
)
from mmembed.config import Hz
from mmembed.features.audio import FEATURE_RATE, MEL_BANDS
from mmembed.features.video import CROP, VIDEO_RATE, CropForm
from mmembed.nn.frontend import AudioFrontend, TextFrontend, VideoFrontend
from mmembed.nn.transformer import Block, mean_and_std, stack_layers
from mmembed.settings.encoder import EncoderConfig
from mmembed.streams import STREAMS

FRAME_RATE: Final[Hz] = 25  # Hz, of everything behind the front ends
assert FEATURE_RATE == 4 * FRAME_RATE and VIDEO_RATE == FRAME_RATE


@dataclass(frozen=True)
class EncoderOutput:
    """The outputs of all layers, packed; N = frames of all items on the frame grid.

    Attributes:
        fused: (N, D) weighted sum of all streams: the embedding's frames.
        audio_visual: (N, D) weighted sum of audio and video alone; None where there is no such sum.
        layers: `Encoder.layer_names` -> (N', D): each stream's own layers in its own steps, the
            last three on the frame grid.
        text: the text stream's own steps (N_text, D), of the items that have text.
        text_positions: (N_text,) their positions on the frame grid, in frames.
        present: (B, 3) bool, which of `STREAMS` each item has.
    """

    fused: Packed
    audio_visual: Packed | None
    layers: dict[str, Packed]
    text: Packed
    text_positions: Tensor
    present: Tensor


class Encoder(nn.Module):
    """See the module's docstring.

    Attributes:
        reads: the streams that it reads.
        frame_rate: frames a second.
        pooled_layers: those whose mean and standard deviation are a clip's one vector.
    """

    reads: tuple[str, ...] = STREAMS
    frame_rate: Hz = FRAME_RATE
    pooled_layers: tuple[str, ...] = ("fused",)

    def __init__(
        self, config: EncoderConfig, backbones: Mapping[str, StreamEncoder] | None = None
    ) -> None:
        super().__init__()
        backbones = backbones or {}
        named = {stream for stream in STREAMS if config.backbone_config(stream).name}
        if named != set(backbones):
            raise ValueError(f"backbones of {sorted(backbones)} for {sorted(named)}")
        if config.vocabulary_size < 2:
            raise ValueError(
                f"vocabulary_size {config.vocabulary_size}: needs a trained vocabulary"
            )
        self.config = config
        width = config.width

        def block(**kind: Any) -> Block:
            return Block(width, config.num_heads, config.dropout, **kind)

        def own_blocks(stream: str) -> nn.ModuleList:
            conv_size = config.conv_size if stream == "audio" else 0
            depth = getattr(config, f"{stream}_layers")
            return nn.ModuleList(block(conv_size=conv_size) for _ in range(depth))

        def cross_blocks() -> nn.ModuleList:
            # The first keeps nothing of its query: its output is the other stream alone.
            return nn.ModuleList(
                block(cross=True, residual=depth > 0) for depth in range(config.cross_layers)
            )

        makers: dict[str, Callable[[], nn.Module]] = {
            "audio": lambda: AudioFrontend(MEL_BANDS, config.audio_channels, width),
            "video": lambda: VideoFrontend(CROP, config.video_channels, width),
            "text": lambda: TextFrontend(config.vocabulary_size, width),
        }
        self.frontends = nn.ModuleDict()
        for stream, make in makers.items():
            self.frontends[stream] = (
                PretrainedFrontend(backbones[stream], config.backbone_config(stream), width)
                if stream in backbones
                else make()
            )
        self.own = nn.ModuleDict({stream: own_blocks(stream) for stream in STREAMS})
        self.cross = nn.ModuleDict({stream: cross_blocks() for stream in ("video", "text")})
        self.norms = nn.ModuleDict({stream: nn.LayerNorm(width) for stream in STREAMS})
        self.absent = nn.ParameterDict(
            {stream: nn.Parameter(0.02 * torch.randn(width)) for stream in STREAMS}
        )
        self.fusion = nn.Parameter(torch.tensor([0.4, 0.4, 0.2]).log())

    @property
    def layer_names(self) -> tuple[str, ...]:
        """The layers in order; layer 0 of a stream is its front end."""
        streams = (name for stream in STREAMS for name in self.own_layer_names(stream))
        return (*streams, "video aligned", "text aligned", "fused")

    def own_layer_names(self, stream: str) -> tuple[str, ...]:
        """The layers that see one stream alone: those of a backbone, then ours."""
        depth = len(self._blocks(self.own, stream))
        return (*self.backbone_names(stream), *(f"{stream} {n}" for n in range(depth + 1)))

    def backbone_names(self, stream: str) -> list[str]:
        """The layers of the pretrained encoder of a stream; none without one."""
        backbone = self.backbone(stream)
        depth = -1 if backbone is None else len(backbone.blocks)
        return [f"{stream} backbone {n}" for n in range(depth + 1)]

    def backbone(self, stream: str) -> StreamEncoder | None:
        """The pretrained encoder that is the front end of a stream; None = our own front end."""
        frontend = self.frontends[stream]
        return frontend.backbone if isinstance(frontend, PretrainedFrontend) else None

    @property
    def backbones(self) -> dict[str, StreamEncoder]:
        """Stream -> the pretrained encoder that is its front end; streams of our own are absent."""
        return {s: found for s in STREAMS if (found := self.backbone(s)) is not None}

    @property
    def layer_width(self) -> int:
        """D of the widest layer."""
        return max([self.config.width, *(one.width for one in self.backbones.values())])

    @property
    def frame_width(self) -> int:
        """D of the frames."""
        return self.config.width

    @property
    def reads_samples(self) -> bool:
        """Whether the audio stream is read as samples, not as log-mel."""
        return self.backbone("audio") is not None

    @property
    def crops(self) -> CropForm:
        """The form of face crops to make of media."""
        return crops_read_by(self.backbone("video"))

    @property
    def any_crops(self) -> bool:
        """Whether it also reads crops of other forms: a pretrained encoder resizes them."""
        return self.backbone("video") is not None

    def layer_rate(self, name: str) -> Hz:
        """Steps a second of a layer; 0 for the own layers of text."""
        stream, _, rest = name.partition(" ")
        if stream == "text" and name != "text aligned":
            return 0
        backbone = self.backbone(stream) if rest.startswith("backbone") else None
        return FRAME_RATE if backbone is None else backbone.rate

    @property
    def fusion_weights(self) -> Tensor:
        """(3,) in the order of `STREAMS`, positive, summing to 1."""
        return self.fusion.softmax(0)

    def forward(self, inputs: Mapping[str, Packed | Padded]) -> Encoding:
        """Embed a batch; see `Batch.inputs`.

        Raises:
            ValueError: an item has no stream at all.
        """
        return self.pool(self.encode(inputs))

    def pool(self, hidden: EncoderOutput, shared: SharedLayers | None = None) -> Encoding:
        """Pool the output of `encode`, called with the same `shared`, to an embedding an item."""
        whole = hidden.present.all(0).tolist()
        own = {  # text has other layers on each grid
            name
            for stream, every in zip(STREAMS, whole, strict=True)
            for name in self.own_layer_names(stream)
            if every and stream != "text"
        }
        pooled: dict[int, Tensor] = {}  # by layer: one may have several names
        for name, layer in hidden.layers.items():
            if id(layer) not in pooled:
                pool = partial(mean_and_std, layer)
                if shared is None or name not in own:
                    pooled[id(layer)] = pool()
                else:
                    pooled[id(layer)] = shared.once(("pooled", name), pool)
        return Encoding(
            frames=hidden.fused.pad(),
            pooled=pooled[id(hidden.fused)],
            layers=stack_layers([pooled[id(layer)] for layer in hidden.layers.values()]),
            streams=hidden.present,
            frame_rate=FRAME_RATE,
        )

    def encode(
        self, inputs: Mapping[str, Packed | Padded], shared: SharedLayers | None = None
    ) -> EncoderOutput:
        """The outputs of all layers, for heads that need more than the embedding.

        Args:
            inputs: see `Batch.inputs`.
            shared: by calls with the same items in which other streams were left out, and the items
                that have no stream but these.
        """
        lengths = self.lengths(inputs)
        present = torch.stack([lengths[stream] > 0 for stream in STREAMS], 1)
        grid = frame_grid(lengths)
        check_present(present, STREAMS)
        blank = Packed(self.fusion.new_zeros(int(grid.sum()), self.config.width), grid)
        positions = blank.positions().float()

        layers: dict[str, Packed] = {}
        paths: dict[str, Packed] = {}
        text = Packed(blank.values[:0], torch.zeros(0, dtype=torch.int64))
        text_positions = positions[:0]
        for stream in STREAMS:
            has = present[:, STREAMS.index(stream)]
            names = self.own_layer_names(stream)
            backbone_names = self.backbone_names(stream)
            if not bool(has.any()):
                absent = self._filled(stream, None, has, torch.ones_like(grid))
                layers |= dict.fromkeys(names, absent)
                if (backbone := self.backbone(stream)) is not None:
                    zeros = absent.values.new_zeros(len(has), backbone.width)
                    layers |= dict.fromkeys(backbone_names, absent.with_values(zeros))
                paths[stream] = self._filled(stream, None, has, grid)
                continue
            steps_of_all = inputs[stream].pack()  # an item without the stream has none in it
            kept = Packed(steps_of_all.values, steps_of_all.lengths[has])
            query = None
            if stream != "audio":
                selected = has.repeat_interleave(grid).to(blank.values.device)
                query = Packed(paths["audio"].values[selected], grid[has])
            how = stream, kept, grid[has], query
            if shared is None:
                own, path, own_positions = self.encode_stream(*how)
            else:  # a query is the audio of an item, or stands for audio that is not read
                heard = tuple((lengths["audio"][has] > 0).tolist())
                own, path, own_positions = self._encode_stream_once(*how, heard, shared)
            paths[stream] = self._filled(stream, path, has, grid)
            if stream == "text":
                text, text_positions = own[-1], own_positions
            steps = torch.where(has, lengths[stream], 1)
            for name, layer in zip(names, own, strict=True):
                if name in backbone_names:
                    layers[name] = zero_filled(layer, has)
                else:
                    layers[name] = self._filled(stream, layer, has, steps)

        fused, audio_visual = self.fuse({stream: path.values for stream, path in paths.items()})
        layers["video aligned"], layers["text aligned"] = paths["video"], paths["text"]
        layers["fused"] = blank.with_values(fused)
        layers = {name: layers[name] for name in self.layer_names}
        return EncoderOutput(
            fused=layers["fused"],
            audio_visual=blank.with_values(audio_visual),
            layers=layers,
            text=text,
            text_positions=text_positions,
            present=present,
        )

    def encode_stream(
        self, stream: str, features: Steps, grid: Tensor, query: Steps | None
    ) -> tuple[list[Steps], Steps, Tensor]:
        """One stream of items that all have it.

        Args:
            stream: its name.
            features: (N, ...) as `Batch.inputs` holds them; in padding, zeros.
            grid: (B,) int64, frames of each item on the frame grid.
            query: (N', D) the aligned audio, with which other streams are aligned; None for audio.

        Returns:
            The stream's own layers (N, D), those of a backbone first; the stream aligned to the
            frame grid (N', D); and the positions (N,) of its own steps on the grid.
        """
        own, positions = self._own_layers(stream, self.frontends[stream](features), grid)
        return own, self._align(stream, own[-1], positions, query), positions

    def _encode_stream_once(
        self,
        stream: str,
        features: Packed,
        grid: Tensor,
        query: Packed | None,
        heard: tuple[bool, ...],
        shared: SharedLayers,
    ) -> tuple[list[Packed], Packed, Tensor]:
        """The same, where nothing is computed that another call with `shared` has computed."""
        found = shared.once(stream, lambda: self.frontends[stream](features))
        frames = tuple(grid.tolist())
        own, positions = shared.once(
            (stream, frames if stream == "text" else ()),  # other streams need no grid
            lambda: self._own_layers(stream, found, grid),
        )
        path = shared.once(
            (stream, frames, heard), lambda: self._align(stream, own[-1], positions, query)
        )
        return own, path, positions

    def _own_layers(self, stream: str, found: Any, grid: Tensor) -> tuple[list[Any], Tensor]:
        """The own layers and their positions, from what the front end gives."""
        layers, x = found if isinstance(found, tuple) else ([], found)  # a pretrained one has some
        positions = x.positions().float()
        if stream == "text":
            # Tokens have no times of their own. Spread evenly over the clip they are in the right
            # order, and rotary attention finds the words near a moment.
            positions = (positions + 0.5) * x.to_steps(grid / x.lengths) - 0.5
        layers = [*layers, x]
        for block in self._blocks(self.own, stream):
            layers.append(block(layers[-1], positions))
        if stream == "audio":
            layers[-1] = self._normed(stream, layers[-1])
        return layers, positions

    def _align(self, stream: str, last: Steps, positions: Tensor, query: Steps | None) -> Steps:
        """A stream's last own layer on the frame grid."""
        if query is None:
            return last
        path, grid_positions = query, query.positions().float()
        for block in self._blocks(self.cross, stream):
            path = block(path, grid_positions, last, positions)
        return self._normed(stream, path)

    def fuse(self, paths: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weighted sums (..., D) of the aligned streams: of all three, and of audio and video."""
        weights = dict(zip(STREAMS, self.fusion_weights, strict=True))
        audio_visual = weights["audio"] * paths["audio"] + weights["video"] * paths["video"]
        fused = audio_visual + weights["text"] * paths["text"]
        return fused, audio_visual / (weights["audio"] + weights["video"])

    def lengths(self, inputs: Mapping[str, Packed | Padded]) -> dict[str, Tensor]:
        """Stream -> (B,) frames at 25 Hz (tokens for text), 0 where missing."""
        none = torch.zeros_like(next(iter(inputs.values())).lengths)
        lengths = dict.fromkeys(STREAMS, none)
        for stream, steps in inputs.items():
            frontend = cast(AudioFrontend, self.frontends[stream])
            lengths[stream] = frontend.frames(steps)
        return lengths

    @staticmethod
    def _blocks(stacks: nn.ModuleDict, stream: str) -> list[Block]:
        return list(cast(Iterable[Block], stacks[stream]))

    def _normed(self, stream: str, x: Steps) -> Steps:
        return x.with_values(self.norms[stream](x.values))

    def _filled(self, stream: str, x: Packed | None, has: Tensor, lengths: Tensor) -> Packed:
        """(N, D), `lengths` steps an item: x, or the missing-stream embedding."""
        if x is not None and not torch.is_grad_enabled() and bool(has.all()):
            return x
        absent = self.absent[stream].expand(int(lengths.sum()), -1)
        if x is None:
            return Packed(absent, lengths)
        if bool(has.all()):  # a gradient of zero, for the sum over processes
            return Packed(x.values + 0 * absent, lengths)
        rows = has.repeat_interleave(lengths).nonzero()[:, 0].to(x.values.device)
        return Packed(absent.to(x.values.dtype).index_copy(0, rows, x.values), lengths)
