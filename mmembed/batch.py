"""The values that everything else passes around, and the shape notation.

Shape letters, used in every docstring of the project:

    B items in a batch (utterances, or dialogues)   T steps along a sequence (frames, tokens, turns)
    N real steps of all items, one after another    D width          H heads      L layers
    U transcript tokens                             V vocabulary     C classes    E emotions

A stream ("audio", "video" or "text", see `mmembed.streams`) is a key, never a variable name. A
stream that an item lacks has length 0; that is the only way to say "missing".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self, TypeVar

import torch
from torch import Tensor

from mmembed.streams import STREAMS

UNLABELLED: Final = -1  # class targets; float targets use NaN, sequences length 0

TARGETS: Final = (
    "transcript", "speaker", "masked_text", "sentiment", "emotions", "emotion", "turn_emotion",
)  # fmt: skip
"""Target names: transcript Padded (B, U) int64, speaker (B,) int64, masked_text Padded (B, T) int64
(the true token of each step of the text stream, some of which are hidden there), sentiment (B,)
float, emotions (B, E) float (intensities, or 1 and 0 for present and absent), emotion (B,) int64,
turn_emotion Padded (B, T) int64 (of each turn of a dialogue, UNLABELLED where it is not known)."""

STEPWISE: Final = ("turn_emotion",)  # targets whose labels are counted by step, not by item

CONTEXT: Final = ("turn_speaker", "token_label", "row", "language", "label_mask")
"""What a method may need to know beside inputs: turn_speaker Padded (B, T) int64 (who speaks each
turn, numbered within the dialogue), token_label Padded (B, T) int64 (the emotion that each text
token names, -1 for all others), row (B,) int64 (the item's number in the training set, -1 = not in
it), language (B,) int64 (0 = the source of a transfer, above 0 = its target, -1 = not known),
label_mask (B, E) bool (of which emotions the target "emotions" tells; without it, of all)."""


def precise(values: Tensor) -> Tensor:
    """The same numbers in float32 at least: half precision is widened, float64 stays as it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


@dataclass(frozen=True)
class _Sequences:
    """What `Padded` and `Packed` have in common."""

    values: Tensor
    lengths: Tensor

    def __len__(self) -> int:
        return len(self.lengths)

    def with_values(self, values: Tensor) -> Self:
        return type(self)(values, self.lengths)

    def to(self, device: torch.device | str) -> Self:
        """A copy to a GPU does not wait, so that it overlaps with computing from pinned memory."""
        to_gpu = torch.device(device).type == "cuda"
        return self.with_values(self.values.to(device, non_blocking=to_gpu))

    def pin_memory(self) -> Self:
        return self.with_values(self.values.pin_memory())


@dataclass(frozen=True)
class Padded(_Sequences):
    """Sequences of different lengths in one tensor.

    Attributes:
        values: (B, T, ...), the real steps of each item first, anything after them.
        lengths: (B,) int64, 0 where the item lacks this stream.
    """

    def __post_init__(self) -> None:
        if self.values.ndim < 2 or self.lengths.shape != self.values.shape[:1]:
            raise ValueError(
                f"Padded needs values (B, T, ...) and lengths (B,), found "
                f"{tuple(self.values.shape)} and {tuple(self.lengths.shape)}"
            )

    @classmethod
    def stack(cls, items: Sequence[Tensor]) -> Padded:
        """Pad (T_i, ...) tensors, at least one, with zeros; an empty tensor means "missing"."""
        return Packed.concatenate(items).pad()

    @property
    def mask(self) -> Tensor:
        """(B, T) bool, True = real: the only mask polarity in the project."""
        steps = torch.arange(self.values.shape[1], device=self.values.device)
        return steps < self.lengths.to(self.values.device)[:, None]

    def zeroed(self) -> Padded:
        """The same steps, zeros after them."""
        padding = ~self.mask.reshape(*self.values.shape[:2], *[1] * (self.values.ndim - 2))
        return self.with_values(self.values.masked_fill(padding, 0))

    def positions(self) -> Tensor:
        """(B, T) int64: the position of each step within its item."""
        shape = self.values.shape[:2]
        return torch.arange(shape[1], device=self.values.device).expand(shape)

    def to_steps(self, values: Tensor) -> Tensor:
        """(B, ...) -> (B, 1, ...): what each item has, for all its steps."""
        return values.to(self.values.device)[:, None]

    def total(self) -> Tensor:
        """(B, T, ...) -> (B, ...): the sum of each item's steps."""
        return self.zeroed().values.sum(1)

    def pack(self) -> Packed:
        """The same steps without padding."""
        return Packed(self.values[self.mask], self.lengths)

    def pad(self) -> Padded:
        """Itself; see `Batch.inputs`."""
        return self

    def item(self, index: int) -> Tensor:
        """The real steps (T_i, ...) of one item."""
        return self.values[index, : int(self.lengths[index])]


@dataclass(frozen=True)
class Packed(_Sequences):
    """Sequences of different lengths, one after another, no padding at all.

    Attributes:
        values: (N, ...), N = sum of lengths.
        lengths: (B,) int64, kept on the CPU: they steer Python loops.
    """

    @classmethod
    def concatenate(cls, items: Sequence[Tensor]) -> Packed:
        """Pack (T_i, ...) tensors, at least one; an empty tensor means "missing".

        A missing one may have another shape than the others: it does not know theirs.
        """
        lengths = torch.tensor([len(item) for item in items], dtype=torch.int64)
        return cls(torch.cat([item for item in items if len(item)] or [items[0]]), lengths)

    @property
    def offsets(self) -> Tensor:
        """(B + 1,) int64: item b is `values[offsets[b] : offsets[b + 1]]`."""
        return torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))

    def split(self) -> tuple[Tensor, ...]:
        """One (T_i, ...) view for each item."""
        return torch.split(self.values, self.lengths.tolist())

    def pack(self) -> Packed:
        """Itself; see `Batch.inputs`."""
        return self

    def pad(self) -> Padded:
        """The same steps, zeros after them."""
        longest = max(1, int(self.lengths.max())) if len(self.lengths) else 1
        shape = (len(self.lengths), longest, *self.values.shape[1:])
        mask = torch.arange(longest) < self.lengths[:, None]
        padded = self.values.new_zeros(shape)
        padded[mask.to(self.values.device)] = self.values
        return Padded(padded, self.lengths)

    def item_index(self) -> Tensor:
        """(N,) int64: the item that each step belongs to."""
        index = torch.arange(len(self.lengths)).repeat_interleave(self.lengths)
        return index.to(self.values.device)

    def positions(self) -> Tensor:
        """(N,) int64: the position of each step within its item."""
        starts = self.offsets[:-1].repeat_interleave(self.lengths)
        return (torch.arange(int(self.lengths.sum())) - starts).to(self.values.device)

    def to_steps(self, values: Tensor) -> Tensor:
        """(B, ...) -> (N, ...): what each item has, for all its steps."""
        return values.to(self.values.device)[self.item_index()]

    def total(self) -> Tensor:
        """(N, ...) -> (B, ...): the sum of each item's steps."""
        if not self.values.is_cuda:
            return torch.stack([item.sum(0) for item in self.split()])
        total = self.values.new_zeros(len(self.lengths), *self.values.shape[1:])
        return total.index_add(0, self.item_index(), self.values)


def frame_grid(lengths: Mapping[str, Tensor]) -> Tensor:
    """(B,) frames of each item on the frame grid, from the frames of its streams: those of the
    audio, else of the video, else the tokens of the text.
    """
    grid = torch.where(lengths["audio"] > 0, lengths["audio"], lengths["video"])
    return torch.where(grid > 0, grid, lengths["text"])


def check_present(present: Tensor, streams: Iterable[str]) -> None:
    """Raise ValueError unless each item of (B, 3) has a stream."""
    if not bool(present.any(1).all()):
        raise ValueError(
            f"item {int((~present.any(1)).nonzero()[0])} of the batch has no stream: "
            f"give each at least one of {', '.join(streams)}"
        )


def zero_filled(layer: Packed, has: Tensor) -> Packed:
    """Layers of a batch of which only some items have the stream: one step of zeros for others.

    Args:
        layer: of the items that have it, in their order.
        has: (B,) bool.
    """
    if bool(has.all()):
        return layer
    zero, found = layer.values.new_zeros(1, layer.values.shape[1]), iter(layer.split())
    return Packed.concatenate([next(found) if held else zero for held in has.tolist()])


T = TypeVar("T")
Steps = TypeVar("Steps", Packed, Padded)
"""What a layer takes and gives: packed steps, or padded ones where a graph must have no shapes that
depend on lengths (`mmembed.traceable`). Docstrings give the shape of packed steps, (N, ...); padded
ones have (B, T, ...)."""


@dataclass(frozen=True)
class Batch:
    """What a method sees: items with streams and labels, any of them possibly missing.

    Attributes:
        keys: one per item.
        inputs: stream -> steps. Clips are Packed: audio (N, 80) log-mel, video (N, H, W) grey or
            (N, H, W, 3) RGB uint8, text (N,) int64 token ids. The studies' precomputed features of
            any of them, and frozen embeddings under the name "embedding", are Padded (B, T, D)
            float. A method takes both: it asks for the form it computes on, by `pack()` or `pad()`,
            which costs nothing where it is that form already.
        targets: Tensor or Padded, see `TARGETS`; a missing target means that no item has it.
        context: Tensor or Padded, see `CONTEXT`.
    """

    keys: tuple[str, ...]
    inputs: Mapping[str, Packed | Padded]
    targets: Mapping[str, Any] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = set(self.inputs) - {*STREAMS, "embedding"} | set(self.targets) - set(TARGETS)
        unknown |= set(self.context) - set(CONTEXT)
        if unknown:
            raise ValueError(
                f"unknown inputs, targets or context {sorted(unknown)}: inputs are "
                f"{', '.join(STREAMS)} or embedding, targets are {', '.join(TARGETS)}, context is "
                f"{', '.join(CONTEXT)}"
            )
        for name, value in [*self.inputs.items(), *self.targets.items(), *self.context.items()]:
            if len(value) != len(self.keys):
                raise ValueError(f"{name} has {len(value)} items, the batch has {len(self.keys)}")

    def __len__(self) -> int:
        return len(self.keys)

    def labelled(self, target: str) -> Tensor:
        """(B,) bool: which items carry the label, a target or a piece of context."""
        value = self.targets.get(target, self.context.get(target))
        if value is None:
            return torch.zeros(len(self), dtype=torch.bool)
        if isinstance(value, Padded):
            return value.lengths > 0
        known: Tensor = ~value.isnan() if value.is_floating_point() else value != UNLABELLED
        return known if known.ndim == 1 else known.all(dim=1)

    def count(self, target: str) -> int:
        """How many items carry the label; of a target in `STEPWISE`, how many steps do."""
        value = self.targets.get(target)
        if target in STEPWISE and isinstance(value, Padded):
            return int((value.mask & (value.values != UNLABELLED)).sum())
        return int(self.labelled(target).sum())

    def without_labels(self) -> Batch:
        """The same items, none of which counts in a loss."""

        def none(value: Any) -> Any:
            if isinstance(value, Padded):
                return Padded(value.values[:, :0], torch.zeros_like(value.lengths))
            return torch.full_like(value, math.nan if value.is_floating_point() else UNLABELLED)

        targets = {name: none(value) for name, value in self.targets.items()}
        return replace(self, targets=targets)

    def to(self, device: torch.device | str) -> Batch:
        return self._each(lambda value: value.to(device))

    def pin_memory(self) -> Batch:
        """In memory that a GPU reads by itself; `torch.utils.data.DataLoader` calls it."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> Batch:
        parts = (self.inputs, self.targets, self.context)
        return Batch(
            self.keys, *({n: change(value) for n, value in part.items()} for part in parts)
        )


@dataclass(frozen=True)
class Encoding:
    """What the encoder says of a batch.

    Attributes:
        frames: (B, T, D) at `frame_rate`, the weighted sum of the aligned streams.
        pooled: (B, 2 D), mean and standard deviation of the frames over time.
        layers: (B, L, 2 D), mean and standard deviation of every layer; `Encoder.layer_names`
            names them.
        streams: (B, 3) bool, which of `STREAMS` each item had.
        frame_rate: steps a second, Hz.
    """

    frames: Padded
    pooled: Tensor
    layers: Tensor
    streams: Tensor
    frame_rate: float

    def to(self, device: torch.device | str) -> Encoding:
        return replace(
            self,
            frames=self.frames.to(device),
            pooled=self.pooled.to(device),
            layers=self.layers.to(device),
        )


class SharedLayers(dict[Hashable, Any]):
    """What stream subsets of the same items have in common, computed once.

    The layers of a stream are those of the items that have it, in their order; this depends on no
    other stream. So one of these serves all calls of an encoder that differ in the streams read.
    """

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, called the first time only."""
        if key not in self:
            self[key] = make()
        found: T = self[key]
        return found


@dataclass(frozen=True)
class ClipInputs:
    """The tensors of a batch of clips, and what an encoder has made of them so far.

    Attributes:
        streams: those of all three, see `Batch.inputs`.
        shared: see `Encoder.encode`.
    """

    streams: Mapping[str, Packed]
    shared: SharedLayers = field(default_factory=SharedLayers)

    def only(self, streams: Collection[str]) -> ClipInputs:
        """Of the clips that have any of these streams, these alone; what is shared is the same."""
        held = {
            s: x if s in streams else Packed(x.values[:0], torch.zeros_like(x.lengths))
            for s, x in self.streams.items()
        }
        kept = torch.stack([x.lengths > 0 for x in held.values()]).any(0)
        return replace(
            self, streams={s: Packed(x.values, x.lengths[kept]) for s, x in held.items()}
        )

    def to(self, device: torch.device) -> ClipInputs:
        """On this device; a copy to a GPU does not wait."""
        return replace(self, streams={s: x.to(device) for s, x in self.streams.items()})

    def pin_memory(self) -> ClipInputs:
        """In memory that a GPU reads by itself."""
        return replace(self, streams={s: x.pin_memory() for s, x in self.streams.items()})
