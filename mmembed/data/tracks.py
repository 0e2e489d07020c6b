"""Decoded frames laid out on one clock: sound sample by sample, pictures at 25 Hz."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

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
    chunks: list[NDArray[np.float32]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Samples from start to stop."""
        return round((self.stop - self.start) * self.rate)

    def add(self, frame: av.AudioFrame, time: Seconds | None) -> None:
        samples = _mono(frame)
        if time is not None:
            ahead = round((time - self.start) * self.rate) - self.filled
            if not self.filled or abs(ahead) > ROUNDING * self.rate:
                self._append(np.zeros(min(max(ahead, 0), self.size - self.filled), np.float32))
                samples = samples[max(-ahead, 0) :]
        self._append(samples)
        self.done = self.filled >= self.size

    def _append(self, samples: NDArray[np.float32]) -> None:
        self.chunks.append(samples)
        self.filled += len(samples)

    def finish(self) -> NDArray[np.float32]:
        return np.concatenate([np.zeros(0, np.float32), *self.chunks])[: self.size]


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

    start: Seconds
    stop: Seconds
    done: bool = False
    shape: tuple[int, ...] = ()
    filled: int = 0
    shown: tuple[Seconds, Seconds, NDArray[np.uint8]] | None = None  # since, for, what
    buffer: bytearray = field(default_factory=bytearray)

    def add(self, frame: av.VideoFrame, time: Seconds | None) -> None:
        lasts = 1 / VIDEO_RATE
        if frame.duration and frame.time_base:
            lasts = float(frame.duration * frame.time_base)
        if time is None:
            time = self.shown[0] + self.shown[1] if self.shown else 0.0
        self._show_until(time)
        self.shown = (time, lasts, _luma(frame))
        self.done = time >= self.stop

    def _show_until(self, time: Seconds) -> None:
        """Repeat the shown picture for the steps before `time`.

        A step asks at its middle, where rounded timestamps do no harm.
        """
        count = round((min(time, self.stop) - self.start) * VIDEO_RATE) - self.filled
        if self.shown is None or count <= 0:
            return
        picture = self.shown[2]
        self.shape = self.shape or picture.shape
        if picture.shape != self.shape:
            picture = _resize(picture, self.shape[1], self.shape[0])
        self.buffer += picture.tobytes() * count
        self.filled += count

    def finish(self) -> NDArray[np.uint8] | None:
        if self.shown is not None:
            since, lasts, _ = self.shown
            self._show_until(since + lasts)
            if not self.filled and since + lasts > self.start:
                self._show_until(self.start + 1 / VIDEO_RATE)  # less than half a step is a step
        if not self.filled:
            return None
        return np.frombuffer(self.buffer, np.uint8).reshape(-1, *self.shape)


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
