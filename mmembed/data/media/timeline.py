"""Decoded frames laid out on one clock: sound sample by sample, pictures at 25 Hz."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.media.downmix import join, layout_note, mid_and_side
from mmembed.data.media.luma import hdr_note, luma, resize
from mmembed.features.video import VIDEO_RATE

MOST_PLANES: Final = 8  # AV_NUM_DATA_POINTERS
ROUNDING: Final[Seconds] = 0.02  # timestamps that far from contiguous sound are not gaps
LEAST_BACK: Final[Seconds] = 0.1  # times that go back by more begin anew: files were joined
LEAST_AHEAD: Final[Seconds] = 300.0  # likewise ahead, where that can be a new beginning


class Clock:
    """Times of the container to times of the clip, which joined recordings follow one another in.

    Args:
        origin: time 0 of the clip, in the container.
        breaks: whether a jump ahead is a new beginning as well, as in broadcasts; else a gap.
    """

    def __init__(self, origin: Seconds, *, breaks: bool = False) -> None:
        self._shifts = [-origin]  # of each recording
        self._breaks = breaks
        self._part: dict[int, int] = {}  # of a track: the recording it has reached
        self._last: dict[int, Seconds] = {}
        self._end = 0.0

    @property
    def recordings(self) -> int:
        """How many have begun."""
        return len(self._shifts)

    def place(self, track: int, time: Seconds, lasts: Seconds) -> Seconds:
        """When a frame begins.

        Args:
            track: whose frame it is; the frames of a track come in order.
            time: in the container.
            lasts: how long it is shown or heard.
        """
        part, last = self._part.get(track, 0), self._last.get(track)
        placed = time + self._shifts[part]
        while last is not None and self._is_new(placed, last):
            part += 1
            if part == len(self._shifts):
                self._shifts.append(self._end - time)
            placed = time + self._shifts[part]
            if part + 1 == len(self._shifts):
                break
        self._part[track], self._last[track] = part, placed
        self._end = max(self._end, placed + lasts)
        return placed

    def follow(self, track: int, lasts: Seconds) -> Seconds:
        """When a frame begins that comes right behind the one before."""
        placed = self._last.get(track, 0.0)
        self._last[track] = placed + lasts
        return placed

    def _is_new(self, placed: Seconds, last: Seconds) -> bool:
        return placed < last - LEAST_BACK or (self._breaks and placed > self._end + LEAST_AHEAD)


@dataclass
class Sound:
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
        self.limited = self.limited and len(names) < 3
        self._note(layout_note(names))
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

    def _note(self, note: str | None) -> None:
        if note is not None and note not in self.notes:
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


@dataclass
class Pictures:
    """Luma planes at 25 Hz from `start`: at each step the picture then on the screen.

    One growing buffer holds them: a list of arrays to stack would need the memory twice.

    Attributes:
        notes: what became of their levels.
    """

    rate: ClassVar[int] = VIDEO_RATE
    start: Seconds
    stop: Seconds
    done: bool = False
    shape: tuple[int, ...] = ()
    filled: int = 0
    taken: int = 0
    shown: tuple[Seconds, Seconds, NDArray[np.uint8]] | None = None  # since, for, what
    buffer: bytearray = field(default_factory=bytearray)
    notes: list[str] = field(default_factory=list)

    def add(self, frame: av.VideoFrame, time: Seconds | None) -> None:
        if time is None:
            time = self.shown_until
        self.show_until(time)
        self.shown = (time, lasting(frame), luma(frame))
        if not self.notes and (note := hdr_note(frame)) is not None:
            self.notes.append(note)
        self.done = time >= self.stop

    @property
    def shown_until(self) -> Seconds:
        """When the shown picture has lasted its time."""
        return self.shown[0] + self.shown[1] if self.shown else 0.0

    def show_until(self, time: Seconds, most: int | None = None) -> bool:
        """Repeat the shown picture for the steps before `time`.

        A step asks at its middle, where rounded timestamps do no harm.

        Args:
            time: in the file.
            most: steps at once; None = all.

        Returns:
            Whether it has got there.
        """
        due = round((min(time, self.stop) - self.start) * VIDEO_RATE) - self.filled
        if self.shown is None or due <= 0:
            return True
        count = due if most is None else min(due, most)
        picture = self.shown[2]
        self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            picture = resize(picture, self.shape[1], self.shape[0])
        self.buffer += picture.tobytes() * count
        self.filled += count
        return count == due

    def close(self) -> None:
        """Show the last picture for its time."""
        if self.shown is not None:
            self.show_until(self.shown_until)
            if not self.filled and self.shown_until > self.start:
                self.show_until(self.start + 1 / VIDEO_RATE)  # less than half a step is a step

    def finish(self) -> NDArray[np.uint8] | None:
        self.close()
        if not self.filled:
            return None
        return np.frombuffer(self.buffer, np.uint8).reshape(-1, *self.shape)

    @property
    def held(self) -> int:
        """Pictures that can be taken."""
        return self.filled - self.taken

    def take(self, most: int) -> NDArray[np.uint8]:
        """Remove the first of the pictures held, at least one."""
        shape = (min(most, self.held), *self.shape)
        size = math.prod(shape)
        taken = np.frombuffer(self.buffer[:size], np.uint8).reshape(shape)
        del self.buffer[:size]
        self.taken += len(taken)
        return taken


Track: TypeAlias = Sound | Pictures


def lasting(frame: av.AudioFrame | av.VideoFrame) -> Seconds:
    """How long a frame is heard or shown."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    if frame.duration and frame.time_base:
        return float(frame.duration * frame.time_base)
    return 1 / VIDEO_RATE
