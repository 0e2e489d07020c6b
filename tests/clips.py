"""Sound and video files that tests write, with content whose times are known."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> NDArray[np.float32]:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype("f4")


def burst(seconds: float, at: float, rate: int = RATE) -> NDArray[np.float32]:
    """Silence, and 0.2 s of a tone from `at` on."""
    sound = np.zeros(round(seconds * rate), np.float32)
    first = round(at * rate)
    sound[first : first + rate // 5] = tone(0.2, rate)
    return sound


def grey_steps(levels: Sequence[int], height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Even pictures, in RGB so that the conversion of a camera file takes part."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]


def write_video(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]] = (),
    times: Sequence[float] = (),
    sound: NDArray[np.float32] | None = None,
    *,
    rate: int = RATE,
    fps: int = 25,
    codec: str = "libx264",
    sound_at: float = 0.0,
    options: dict[str, str] | None = None,
) -> Path:
    """A container with pictures at the given seconds and mono or (channels, samples) sound."""
    tick = Fraction(1, 12_000)
    with av.open(str(path), "w", options=options or {}) as container:
        if len(pictures):
            height, width = pictures[0].shape[:2]
            video = container.add_stream(codec, rate=fps)
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.bit_rate = 2_000_000
            video.codec_context.time_base = tick
        if sound is not None:
            channels = np.atleast_2d(sound)
            layout = "mono" if len(channels) == 1 else "stereo"
            audio = container.add_stream("aac", rate=rate, layout=layout)
            assert isinstance(audio, av.AudioStream)
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(video.encode(frame))
        if len(pictures):
            container.mux(video.encode(None))
        if sound is not None:
            frame_ = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
            frame_.sample_rate, frame_.pts = rate, round(sound_at * rate)
            frame_.time_base = Fraction(1, rate)
            container.mux(audio.encode(frame_))
            container.mux(audio.encode(None))
    return path
