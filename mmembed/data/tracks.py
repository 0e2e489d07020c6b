"""Decoded frames laid out on one clock: sound sample by sample, pictures at 25 Hz."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeAlias

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.features.video import VIDEO_RATE

LARGEST_SIDE: Final = 480  # pixels; a face that fills a fifth of it still fills its crop
ROUNDING: Final[Seconds] = 0.02  # timestamps that far from contiguous sound are not gaps


@dataclass
class Sound:
    """Mono samples at their own rate, laid out from `start` by time."""

    rate: int
    start: Seconds
    stop: Seconds
    done: bool = False
    filled: int = 0
    taken: int = 0
    chunks: deque[NDArray[np.float32]] = field(default_factory=deque)

    @property
    def size(self) -> int:
        """Samples from start to stop."""
        return round((self.stop - self.start) * self.rate)

    def add(self, frame: av.AudioFrame, time: Seconds | None) -> None:
        samples = _mono(frame)
        if time is not None:
            ahead = round((time - self.start) * self.rate) - self.filled
            if not self.filled or abs(ahead) > ROUNDING * self.rate:
                silence = min(max(ahead, 0), self.size - self.filled)
                self._append(np.broadcast_to(np.float32(0), silence))  # takes no memory
                samples = samples[max(-ahead, 0) :]
        self._append(samples)
        self.done = self.filled >= self.size

    def _append(self, samples: NDArray[np.float32]) -> None:
        self.chunks.append(samples)
        self.filled += len(samples)

    @property
    def held(self) -> int:
        """Samples that can be taken."""
        return min(self.filled, self.size) - self.taken

    def take(self, most: int) -> NDArray[np.float32]:
        """Remove the first of the samples held."""
        wanted = min(most, self.held)
        self.taken += wanted
        parts = [np.zeros(0, np.float32)]
        while wanted:
            chunk = self.chunks.popleft()
            parts.append(chunk[:wanted])
            if len(chunk) > wanted:
                self.chunks.appendleft(chunk[wanted:])
            wanted -= len(parts[-1])
        return np.concatenate(parts)


def _mono(frame: av.AudioFrame) -> NDArray[np.float32]:
    """(samples,) in [-1, 1], the mean of the channels as for sound files.

    FFmpeg's own mono mix of floats adds channels with weights of 0.71: louder, and clipped.
    """
    raw: NDArray[Any] = frame.to_ndarray()
    if not frame.format.is_planar:
        raw = raw.reshape(-1, frame.layout.nb_channels).T
    zero, one = 0.0, 1.0
    if raw.dtype == np.uint8:
        zero = one = 128.0
    elif raw.dtype.kind == "i":
        one = np.iinfo(raw.dtype).max + 1.0
    mono: NDArray[np.float32] = ((raw.mean(axis=0) - zero) / one).astype(np.float32)
    return mono


@dataclass
class Pictures:
    """Luma planes at 25 Hz from `start`: at each step the picture then on the screen.

    One growing buffer holds them: a list of arrays to stack would need the memory twice.
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

    def add(self, frame: av.VideoFrame, time: Seconds | None) -> None:
        lasts = 1 / VIDEO_RATE
        if frame.duration and frame.time_base:
            lasts = float(frame.duration * frame.time_base)
        if time is None:
            time = self.shown_until
        self.show_until(time)
        self.shown = (time, lasts, _luma(frame))
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
            picture = _resize(picture, self.shape[1], self.shape[0])
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


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width) uint8: the Y plane, upright, at most 480 pixels a side."""
    layout = frame.format
    if layout.is_rgb or not layout.is_planar or layout.components[0].bits != 8:
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    luma = np.rot90(rows[: frame.height, : frame.width], round(frame.rotation / 90))
    scale = LARGEST_SIDE / max(luma.shape)
    if scale >= 1:
        return luma.copy()
    return _resize(luma, max(1, round(luma.shape[1] * scale)), max(1, round(luma.shape[0] * scale)))


def _resize(picture: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    resized = cv2.resize(
        np.ascontiguousarray(picture), (width, height), interpolation=cv2.INTER_AREA
    )
    return resized.astype(np.uint8, copy=False)
