"""The audio of a file: samples laid out by time, brought to one channel and to 16 kHz.

The level is that of a mono recording: what comes from the centre, or from left and right alike,
keeps its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import soundfile
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.media.open import BLOCK, MediaPart, damaged
from mmembed.errors import DataError
from mmembed.features.audio import resample

SAMPLE_RATES: Final = range(1_000, 768_001)  # Hz, of sound that is believed
MOST_PLANES: Final = 8  # AV_NUM_DATA_POINTERS
ROUNDING: Final[Seconds] = 0.02  # timestamps that far from contiguous sound are not gaps
HIGHEST_PEAK: Final = 4.0
"""Of sound where full scale is 1. Floats may go beyond it by some decibels, and several loud
channels in one by 11; what is higher is on the scale of integers."""
LEAST_OFFSET: Final = 0.05
"""Of full scale. A constant offset from there on is removed. It is a fault of the device: air
pressure has none, and microphones and their amplifiers pass none on. Short clips of a voice have up
to .02, which is left in them."""
CANCELLED: Final = 1 / 8
"""The part of the power of both channels that their mean keeps. It is 1 for equal channels, 1/2
for channels that have nothing in common or one of which is silent; below 1/8 they cancel each
other: more than 9 dB of the sound is lost, which no placing of microphones does to a voice."""
CLIPPED: Final = "sound beyond full scale is clipped"  # a note

_REAR = sqrt(0.5)  # 3 dB softer than in front (ITU-R BS.775-3)
_POSITIONS: Final[Mapping[str, tuple[float, float]]] = {
    **dict.fromkeys(("FL", "FLC", "DL"), (1.0, 0.0)),
    **dict.fromkeys(("FR", "FRC", "DR"), (0.0, 1.0)),
    **dict.fromkeys(("FC", "BFC"), (1.0, 1.0)),
    **dict.fromkeys(("BL", "SL", "WL", "SDL", "TFL", "TBL", "TSL", "BFL"), (_REAR, 0.0)),
    **dict.fromkeys(("BR", "SR", "WR", "SDR", "TFR", "TBR", "TSR", "BFR"), (0.0, _REAR)),
    **dict.fromkeys(("BC", "TC", "TFC", "TBC"), (_REAR, _REAR)),
    **dict.fromkeys(("LFE", "LFE2"), (0.0, 0.0)),
}  # fmt: skip
"""How much of a channel, by FFmpeg's name of its loudspeaker, goes left and right."""


def mid_and_side(
    samples: NDArray[Any], names: Sequence[str], zero: float = 0.0, one: float = 1.0
) -> NDArray[np.float32]:
    """(channels, samples) to the half sum of left and right and, where these differ, their half
    difference.

    What comes from the centre, or from left and right alike, keeps its level; what comes from the
    back is 3 dB softer, low-frequency effects are left out. Channels of unknown places become their
    mean.

    Args:
        samples: on any scale.
        names: of the loudspeakers.
        zero: the value of silence.
        one: how far from there full scale is.

    Returns:
        (1, samples) or (2, samples), mid and side, where full scale is 1.
    """
    is_pair = tuple(names) in (("FL", "FR"), ("DL", "DR")) or not set(names) & set(_POSITIONS)
    if len(samples) == 2 and is_pair:
        side = (samples[0].astype(np.float64) - samples[1]) / (2 * one)
        return np.stack([(samples.mean(axis=0) - zero) / one, side]).astype(np.float32)
    weights = _weights(tuple(names)) if len(samples) > 1 else None
    if weights is None:
        mean: NDArray[np.float32] = ((samples.mean(axis=0) - zero) / one).astype(np.float32)
        return mean[None]
    mixed: NDArray[np.float32] = weights @ ((samples - np.float32(zero)) / np.float32(one))
    return mixed.astype(np.float32, copy=False)


def join(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Parts of `mid_and_side` one after another; all get a side if one has it."""
    if any(len(part) == 2 for part in parts):
        parts = [part if len(part) == 2 else np.pad(part, ((0, 1), (0, 0))) for part in parts]
    return np.concatenate(
        [*parts, np.zeros((len(parts[0]) if parts else 1, 0), np.float32)], axis=1
    )


@cache
def _weights(names: tuple[str, ...]) -> NDArray[np.float32] | None:
    """(2, channels): mid and side of the channels, None where their places are not known."""
    places = [_POSITIONS.get(name) for name in names]
    left_and_right = np.array([place or (np.nan, np.nan) for place in places], np.float32).T
    if not np.isfinite(left_and_right).all() or not left_and_right.any():
        return None
    weights: NDArray[np.float32] = np.array([[0.5, 0.5], [0.5, -0.5]], np.float32) @ left_and_right
    return weights


class ToMono:
    """One channel from mid and side, block by block; what it does to them stands in `notes`.

    Args:
        path: what errors call the sound.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._sign = 0  # of the side, where one channel is taken alone
        self._offset: float | None = None
        self.notes: list[str] = []

    def __call__(self, values: NDArray[np.float32], *, limited: bool) -> NDArray[np.float32]:
        """The samples of a block.

        Args:
            values: (1, samples) or (2, samples), see `mid_and_side`.
            limited: whether their format can hold nothing beyond full scale.

        Raises:
            DataError: they are not finite, or on another scale than [-1, 1].
        """
        self._check(values)
        mono = values[0]
        if len(values) == 2:
            if not self._sign and _is_cancelled(*values):
                self._sign = 1 if float(values[0] @ values[1]) >= 0 else -1
                side = "left" if self._sign > 0 else "right"
                self.notes.append(f"the channels cancel each other: the {side} one alone is used")
            if self._sign:
                mono = mono + self._sign * values[1]
        mono = self._centred(mono)
        if not limited and CLIPPED not in self.notes and np.abs(mono).max(initial=0.0) > 1:
            self.notes.append(CLIPPED)
        return mono

    def _check(self, values: NDArray[np.float32]) -> None:
        peak = float(np.abs(values).sum(axis=0).max()) if values.size else 0.0
        if not np.isfinite(peak):
            raise DataError(
                str(self._path), "damaged", "cannot be decoded (sound holds infinite values)"
            )
        if peak > HIGHEST_PEAK:
            bits = next((bits for bits in (8, 16, 24) if peak <= 1 << bits), 32)
            message = (
                f"sound peaks at {peak:.6g} where full scale is 1; probably {bits}-bit integers "
                f"stored as floats: divide them by {1 << bits - 1}"
            )
            raise DataError(str(self._path), "scale", message)

    def _centred(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
        """Without a constant offset; exact zeros are gaps that have none."""
        count = np.count_nonzero(mono)
        if self._offset is None and count:
            offset = float(mono.sum(dtype=np.float64)) / count
            self._offset = offset if abs(offset) >= LEAST_OFFSET else 0.0
            if self._offset:
                self.notes.append("a constant offset of the sound is removed")
        if not self._offset:
            return mono
        return np.where(mono == 0, mono, mono - np.float32(self._offset))


def _is_cancelled(mid: NDArray[np.float32], side: NDArray[np.float32]) -> bool:
    kept, lost = float(np.var(mid, dtype=np.float64)), float(np.var(side, dtype=np.float64))
    return lost > 0 and kept < CANCELLED * (kept + lost)


@dataclass
class AudioTrack:
    """One or two channels, mid and side, at the rate of the first frame, laid out from `start` by
    time.

    Attributes:
        limited: whether the samples are of a format that holds nothing beyond full scale.
        notes: what became of channels and rates.
    """

    start: Seconds
    stop: Seconds
    limited: bool = True
    rate: int = 0
    done: bool = False
    filled: int = 0
    taken: int = 0
    chunks: deque[NDArray[np.float32]] = field(default_factory=deque)
    notes: list[str] = field(default_factory=list)
    _resampler: tuple[tuple[int, int], av.AudioResampler] | None = None

    @property
    def size(self) -> int:
        """Samples from start to stop."""
        return round((self.stop - self.start) * self.rate)

    def add(self, frame: av.AudioFrame, time: Seconds | None) -> None:
        self.rate = self.rate or frame.sample_rate
        samples = self._at_rate(self._decoded(frame), frame.sample_rate)
        if time is not None:
            ahead = round((time - self.start) * self.rate) - self.filled
            if not self.filled or abs(ahead) > ROUNDING * self.rate:
                silence = min(max(ahead, 0), self.size - self.filled)
                self._append(np.broadcast_to(np.float32(0), (1, silence)))  # takes no memory
                samples = samples[:, max(-ahead, 0) :]
        self._append(samples)
        self.done = self.filled >= self.size

    def _decoded(self, frame: av.AudioFrame) -> NDArray[np.float32]:
        if frame.format.is_planar and frame.layout.nb_channels >= MOST_PLANES:
            # PyAV reads planes beyond the last one of such frames, and crashes.
            packer = av.AudioResampler(frame.format.packed.name, frame.layout, frame.sample_rate)
            (frame,) = packer.resample(frame)
        raw: NDArray[Any] = frame.to_ndarray()
        if not frame.format.is_planar:
            raw = raw.reshape(-1, frame.layout.nb_channels).T
        zero, one = 0.0, 1.0
        if raw.dtype == np.uint8:
            zero = one = 128.0
        elif raw.dtype.kind == "i":
            one = np.iinfo(raw.dtype).max + 1.0
        names = [channel.name for channel in frame.layout.channels]
        if len(names) > 2:
            self.limited = False
            places = f"({' '.join(names)}) mixed to one"
            if _weights(tuple(names)) is None:
                places = "of unknown places: their mean"
            self._note(f"{len(names)} channels of sound {places}")
        return mid_and_side(raw, names, zero, one)

    def _at_rate(self, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
        """At the rate of the first frame."""
        if rate == self.rate:
            self._resampler = None
            return samples
        self._note(f"the sample rate changes from {self.rate} to {rate} Hz")
        layout, setup = ("mono", "stereo")[len(samples) - 1], (rate, len(samples))
        if self._resampler is None or self._resampler[0] != setup:
            self._resampler = setup, av.AudioResampler("fltp", layout, self.rate)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", layout)
        frame.sample_rate = rate
        parts = [part.to_ndarray() for part in self._resampler[1].resample(frame)]
        return np.concatenate([np.zeros((len(samples), 0), np.float32), *parts], axis=1)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _append(self, samples: NDArray[np.float32]) -> None:
        self.chunks.append(samples)
        self.filled += samples.shape[1]

    @property
    def held(self) -> int:
        """Samples that can be taken."""
        return min(self.filled, self.size) - self.taken

    def take(self, most: int) -> NDArray[np.float32]:
        """Remove the first of the samples held: (1, samples), or (2, samples) if any has a side."""
        wanted = min(most, self.held)
        self.taken += wanted
        parts: list[NDArray[np.float32]] = []
        while wanted:
            chunk = self.chunks.popleft()
            parts.append(chunk[:, :wanted])
            if chunk.shape[1] > wanted:
                self.chunks.appendleft(chunk[:, wanted:])
            wanted -= parts[-1].shape[1]
        return join(parts)


def to_16k(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32] | None:
    """Decoded audio at `rate` to 16 kHz, clipped to full scale; None if there is none."""
    return np.clip(resample(samples, rate), -1, 1) if len(samples) else None


def finish_audio(
    part: MediaPart, samples: NDArray[np.float32], rate: int, limited: bool
) -> NDArray[np.float32] | None:
    """All samples of a part, mid and side, to one channel at 16 kHz."""
    to_mono = ToMono(part.path)
    mono = to_mono(samples, limited=limited)
    part.note(*to_mono.notes)
    return to_16k(mono, rate)


def holds_floats(file: soundfile.SoundFile) -> bool:
    return file.subtype in ("FLOAT", "DOUBLE")


def read_sound_file(part: MediaPart, file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """The samples of a sound file, mid and side, in blocks."""
    if "audio" not in part.streams:
        raise part.no_streams()
    rate = int(file.samplerate)
    check_rate(part.path, rate)
    last = file.frames if part.end is None else min(file.frames, round(part.end * rate))
    count = max(0, last - round(part.start * rate))
    part.check_length(count / rate)
    if file.frames == 0 and file.format == "OGG":
        raise damaged(part.path, "no sample is there")  # an ogg file that was cut short says so
    if count:
        file.seek(last - count)
    for first in range(0, count, BLOCK * rate):
        size = min(BLOCK * rate, count - first)
        samples = file.read(size, dtype="float32", always_2d=True)
        if len(samples) < size:  # than the header says
            why = f"{first + len(samples)} of {count} samples are there"
            raise damaged(part.path, why)
        yield mid_and_side(samples.T, [""] * file.channels)


def check_rate(path: Path, rate: int) -> None:
    """Refuse a sample rate that no sound has, with a DataError."""
    if rate not in SAMPLE_RATES:
        raise damaged(path, f"sound at {rate} Hz")
