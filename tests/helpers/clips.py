"""Sound and video files that tests write, with content whose times are known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Film:
    """Pictures at 25 Hz for `write_streams`."""

    pictures: Sequence[NDArray[np.uint8]]
    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    default: bool | None = None


@dataclass(frozen=True)
class Voice:
    """Sound for `write_streams`: (samples,) or (channels, samples)."""

    samples: NDArray[np.float32]
    codec: str = "aac"
    rate: int = RATE
    layout: str = "mono"
    bit_rate: int | None = None
    default: bool | None = None


def write_streams(
    path: Path,
    *streams: Film | Voice,
    options: Mapping[str, str] | None = None,
    kind: str | None = None,
) -> Path:
    """A container with these streams in this order, their packets by time."""
    frames: list[tuple[float, int, av.VideoFrame | av.AudioFrame]] = []
    with av.open(str(path), "w", format=kind, options=dict(options or {})) as container:
        made = [_add(container, stream) for stream in streams]
        for number, stream in enumerate(streams):
            frames += [(time, number, frame) for time, frame in _frames(stream)]
        for _, number, frame in sorted(frames, key=lambda each: each[:2]):
            container.mux(made[number].encode(frame))
        for one in made:
            container.mux(one.encode(None))
    return path


def _add(container: av.container.OutputContainer, stream: Film | Voice) -> Any:
    if isinstance(stream, Film):
        made: Any = container.add_stream(stream.codec, rate=25, options=dict(stream.options))
        made.height, made.width = stream.pictures[0].shape[:2]
        made.pix_fmt = stream.pixels
    else:
        made = container.add_stream(stream.codec, rate=stream.rate, layout=stream.layout)
        if stream.bit_rate is not None:
            made.bit_rate = stream.bit_rate
    if stream.default is not None:
        made.disposition = av.stream.Disposition.default if stream.default else 0
    return made


def _frames(stream: Film | Voice) -> Iterator[tuple[float, av.VideoFrame | av.AudioFrame]]:
    if isinstance(stream, Film):
        for number, picture in enumerate(stream.pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            yield number / 25, frame
        return
    channels = np.atleast_2d(stream.samples)
    for first in range(0, channels.shape[1], 1024):
        part = channels[:, first : first + 1024].T.reshape(1, -1)
        sound = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(part), format="flt", layout=stream.layout
        )
        sound.sample_rate, sound.pts = stream.rate, first
        sound.time_base = Fraction(1, stream.rate)
        yield first / stream.rate, sound
