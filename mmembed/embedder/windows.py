"""Recordings of any length in bounded memory: encoded window by window, joined at the cores.

    recording  |---------------------------------------------------------|
    cores      |---------------|---------------|---------------|---------|
    windows    |------------------|
                            |---------------------|
                                            |---------------------|
                                                            |------------|

The cores tile the recording. Each is encoded with `CONTEXT` on either side, which is then dropped.
The result is close to that of the whole recording, not equal to it, since attention sees all frames
of what it is given: benchmarks/long.py measures the difference.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmembed.batch import Packed
from mmembed.data.example import Example
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.media.temporary_arrays import release
from mmembed.encoder import FRAME_RATE, Encoder, EncoderOutput
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.text import Subwords, normalise_transcript
from mmembed.features.video import VIDEO_RATE
from mmembed.nn.transformer import VARIANCE_FLOOR, join_pooled, stack_layers
from mmembed.pretrained_encoder import PretrainedEncoder

CORE: Final = 3_000  # frames, 120 s
CONTEXT: Final = 375  # frames, 15 s
STEPS: Final = {"audio": int(SAMPLE_RATE // FRAME_RATE), "video": 1}  # of a stream in a frame
assert STEPS["audio"] * FRAME_RATE == SAMPLE_RATE and FRAME_RATE == VIDEO_RATE


@dataclass(frozen=True)
class Window:
    """A part of a recording, in frames.

    Attributes:
        span: what is encoded.
        core: what is kept of it.
    """

    span: range
    core: range

    @property
    def kept(self) -> slice:
        """The core, counted from the start of the span."""
        return slice(self.core.start - self.span.start, self.core.stop - self.span.start)


def tile(frames: range, core: int = CORE, context: int = CONTEXT) -> list[Window]:
    """Windows whose cores hold each of the frames once; none reaches beyond them."""
    windows = []
    for start in range(frames.start, frames.stop, core):
        stop = min(start + core, frames.stop)
        span = range(max(start - context, frames.start), min(stop + context, frames.stop))
        windows.append(Window(span, range(start, stop)))
    return windows


def plan(example: Example, core: int = CORE, context: int = CONTEXT) -> list[Window]:
    """Windows over all audio and video.

    Where the video goes on for longer than a context after the audio has ended, what follows is a
    recording of video alone: else there would be no frames of it, for the audio is the frame grid.
    """
    held = {"audio": example.audio, "video": example.video}
    lengths = {s: 0 if x is None else -(-len(x) // STEPS[s]) for s, x in held.items()}
    audio, video, end = lengths["audio"], lengths["video"], max(lengths.values())
    silent = audio if 0 < audio < video - context else end
    return tile(range(silent), core, context) + tile(range(silent, end), core, context)


class Moments:
    """Mean and std of steps that come in parts (Chan, Golub and LeVeque 1983), in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = torch.zeros((), dtype=torch.float64)
        self.squares = torch.zeros((), dtype=torch.float64)  # sum of squares about the mean

    def add(self, values: Tensor) -> None:
        """(T, D), T may be 0."""
        if not len(values):
            return
        values = values.double()
        mean = values.mean(0)
        count = self.count + len(values)
        ahead = mean - self.mean
        self.squares = (
            self.squares
            + (values - mean).square().sum(0)
            + ahead.square() * (self.count * len(values) / count)
        )
        self.mean = self.mean + ahead * (len(values) / count)
        self.count = count

    def mean_and_std(self) -> Tensor:
        """(2 D,) float32, as `mmembed.nn.transformer.mean_and_std` gives of all steps at once."""
        std = (self.squares / self.count + VARIANCE_FLOOR).sqrt() - VARIANCE_FLOOR**0.5
        return torch.cat((self.mean, std)).float()


class WordMiddle(NamedTuple):
    """A word and its middle, in frames."""

    text: str
    middle: float


def place_words(text: str, words: Sequence[TimedWord], frames: int) -> list[WordMiddle]:
    """The words of a text where they are spoken.

    Args:
        text: normalised.
        words: with times; if they are not those of the text, it is spread evenly over the frames,
            as the encoder spreads tokens over a clip.
        frames: of the recording.
    """
    texts = [normalise_transcript(word.text) for word in words]
    if " ".join(texts) == text:
        middles = ((word.start + word.end) / 2 * FRAME_RATE for word in words)
        ends = (min(middle, frames - 0.5) for middle in middles)
        return [WordMiddle(*each) for each in zip(texts, ends, strict=True)]
    texts = text.split()
    return [WordMiddle(word, (n + 0.5) * frames / len(texts)) for n, word in enumerate(texts)]


@dataclass(frozen=True)
class Encoded:
    """What an encoder and a recogniser say of one example.

    Attributes:
        frames: (T, D), the fused frames.
        pooled: (2 D,), the clip as one vector.
        layers: (L, 2 D), mean and standard deviation of every layer.
        log_probs: (T, C) of the recogniser's characters, where they are wanted.
    """

    frames: Tensor
    pooled: Tensor
    layers: Tensor
    log_probs: Tensor | None


class _Rows:
    """A matrix that is filled from the top; parts that are concatenated would need it twice."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: Tensor | None = None
        self._filled = 0

    def add(self, rows: Tensor) -> None:
        if self._held is None:
            self._held = torch.empty(self._most, rows.shape[1])
        self._held[self._filled : self._filled + len(rows)] = rows
        self._filled += len(rows)

    @property
    def values(self) -> Tensor:
        assert self._held is not None
        return self._held[: self._filled]


def encode_long(
    example: Example,
    known: Sequence[TimedWord],
    encoder: Encoder | PretrainedEncoder,
    encode: Callable[[Sequence[Example]], EncoderOutput],
    subwords: Subwords | None,
    recogniser: Callable[[Packed], Packed] | None = None,
) -> Encoded:
    """Encode a long recording, with its words where they are spoken; see `encode_windows`.

    Args:
        example: of audio or video.
        known: its words with times, if any.
        encoder: knows the rates of its layers.
        encode: its output for a batch.
        subwords: of the encoder's text stream, None without.
        recogniser: from `EncoderOutput.audio_visual` to log-probabilities, where they are wanted.
    """
    windows = plan(example)
    words = place_words(example.text or "", known, windows[-1].core.stop)
    return encode_windows(
        example, windows, words, encoder, lambda part: encode([part]), subwords, recogniser
    )


def encode_windows(
    example: Example,
    windows: Sequence[Window],
    words: Sequence[WordMiddle],
    encoder: Encoder | PretrainedEncoder,
    encode: Callable[[Example], EncoderOutput],
    subwords: Subwords | None,
    recogniser: Callable[[Packed], Packed] | None = None,
) -> Encoded:
    """Encode an example of audio or video window by window and join the cores.

    Args:
        example: its own text is not read.
        windows: see `plan`.
        words: of the text stream; each window is given those in its span, and each counts in the
            layers of the window whose core it is in.
        encoder: knows the rates of its layers.
        encode: its output for one example.
        subwords: of the encoder's text stream, None without.
        recogniser: from `EncoderOutput.audio_visual` to log-probabilities.
    """
    moments: dict[str, Moments] = defaultdict(Moments)
    absent: dict[str, Tensor] = {}
    count = sum(len(window.core) for window in windows)
    per_frame = round(encoder.frame_rate / FRAME_RATE)
    frames, log_probs = _Rows(count * per_frame), _Rows(count)
    for window in windows:
        near = [word for word in words if window.span.start <= word.middle < window.span.stop]
        part = cut(example, window.span, " ".join(word for word, _ in near))
        hidden = encode(part)
        for name, layer in hidden.layers.items():
            stream, values, rate = name.partition(" ")[0], layer.values, encoder.layer_rate(name)
            if name[-1].isdigit() and stream not in part.streams:
                absent[name] = values  # one step: the encoder's vector for what is not there
                continue
            if rate:
                values = values[_at(window.kept, round(rate / FRAME_RATE))]
            elif subwords is not None:
                values = values[_in_core(part.text or "", near, window.core, subwords)]
            moments[name].add(values.cpu())
        kept = hidden.fused.values[_at(window.kept, per_frame)]
        frames.add(kept.float())  # bfloat16 under autocast
        if recogniser is not None and hidden.audio_visual is not None:
            log_probs.add(recogniser(hidden.audio_visual).values[window.kept])
        release(example.audio)
        release(example.video)
    for name, values in absent.items():
        if not moments[name].count:
            moments[name].add(values.cpu())
    pooled = {name: moments[name].mean_and_std() for name in hidden.layers}
    return Encoded(
        frames.values,
        join_pooled([pooled[name] for name in encoder.pooled_layers]),
        stack_layers([*pooled.values()]),
        log_probs.values if recogniser is not None else None,
    )


def _at(frames: slice, steps: int) -> slice:
    """Frames as steps, so many a frame."""
    return slice(frames.start * steps, frames.stop * steps)


def cut(example: Example, span: range, text: str) -> Example:
    """What of the audio and the video lies in a span of frames, with these words."""
    parts = {}
    for stream, steps in STEPS.items():
        values = getattr(example, stream)
        if values is not None:
            parts[stream] = np.array(values[steps * span.start : steps * span.stop])
    return replace(example, audio=parts.get("audio"), video=parts.get("video"), text=text or None)


def _in_core(text: str, near: Sequence[WordMiddle], core: range, subwords: Subwords) -> list[int]:
    """Which tokens of a window's words belong to words in its core."""
    ends = list(itertools.accumulate(len(word) + 1 for word, _ in near))  # with the space behind
    kept = [core.start <= middle < core.stop for _, middle in near]
    return [
        number
        for number, (_, start, _) in enumerate(subwords.encode_spans(text))
        if kept[bisect_right(ends, start)]
    ]
