"""Media files to sound at 16 kHz and grey pictures at 25 Hz, on one clock.

Both streams are laid out from time 0 of the container by their own timestamps: late starts,
variable frame rates and gaps come out right. Damage raises; a stream that is not there is None.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av
import cv2
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.errors import DataError
from mmembed.features.audio import HOP, SAMPLE_RATE, resample
from mmembed.features.video import VIDEO_RATE

LONGEST: Final[Seconds] = 600.0
LARGEST_SIDE: Final = 720  # pixels; larger pictures are scaled down
MOST_PIXELS: Final = 8192 * 8192  # of a declared picture; more is refused before decoding
SOUND_SUFFIXES: Final = (".wav", ".flac", ".ogg", ".mp3")
MAGIC: Final = (
    (0, b"RIFF"), (0, b"fLaC"), (0, b"OggS"), (0, b"ID3"), (0, b"\xff\xfb"), (0, b"\xff\xf3"),
    (0, b"\xff\xf2"), (0, b"\xff\xf1"), (0, b"\xff\xf9"), (4, b"ftyp"), (4, b"moov"), (4, b"mdat"),
    (4, b"wide"), (4, b"free"), (0, b"\x1aE\xdf\xa3"), (0, b"\x00\x00\x01\xba"),
    (0, b"\x00\x00\x01\xb3"), (0, b"FLV\x01"), (0, b"\x47"), (0, b"\x30\x26\xb2\x75"),
)  # fmt: skip
"""Where and how the first bytes of the media that are opened look; text never does."""


@dataclass(frozen=True)
class Clip:
    """A decoded clip.

    Attributes:
        audio: (samples,) float32 mono at 16 kHz in [-1, 1], or None.
        video: (T, height, width) uint8 grey at 25 Hz, or None.
        seconds: of the longer of both.
    """

    audio: NDArray[np.float32] | None
    video: NDArray[np.uint8] | None
    seconds: Seconds


def load_clip(path: Path, *, start: Seconds = 0.0, end: Seconds | None = None) -> Clip:
    """Decode sound and picture of a file, or of a part of it.

    Args:
        path: a sound or video file.
        start: of the part, from time 0 of the container.
        end: of the part; None = the end of the file.

    Raises:
        DataError: with reason "missing", "empty", "not_media", "no_streams", "too_long",
            "too_large" or "damaged".
    """
    _check(path)
    try:
        if path.suffix.lower() in SOUND_SUFFIXES:
            return _finish(path, _read_sound(path, start, end), None)
        with av.open(str(path), options={"protocol_whitelist": "file"}) as container:
            return _finish(path, *_decode(path, container, start, end))
    except (av.FFmpegError, soundfile.LibsndfileError, EOFError) as error:
        raise DataError(str(path), "damaged", f"cannot be decoded ({_short(error)})") from None


def _check(path: Path) -> None:
    if not path.exists():
        raise DataError(str(path), "missing", "no such file")
    if not path.is_file():
        raise DataError(str(path), "not_media", "not a file")
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise DataError(str(path), "empty", "the file is empty")
    if not any(head[at : at + len(magic)] == magic for at, magic in MAGIC):
        raise DataError(
            str(path), "not_media", "not a media file of a known kind (its first bytes say so)"
        )


def _finish(path: Path, audio: NDArray[np.float32] | None, video: NDArray[np.uint8] | None) -> Clip:
    if audio is None and video is None:
        raise DataError(str(path), "no_streams", "holds neither sound nor pictures")
    lengths = [len(audio) / SAMPLE_RATE if audio is not None else 0.0]
    if audio is not None and len(audio) < HOP:
        audio = np.pad(audio, (0, HOP - len(audio)))
    if video is not None:
        lengths.append(len(video) / VIDEO_RATE)
    return Clip(audio, video, max(lengths))


def _read_sound(path: Path, start: Seconds, end: Seconds | None) -> NDArray[np.float32] | None:
    with soundfile.SoundFile(path) as file:
        last = file.frames if end is None else min(file.frames, round(end * file.samplerate))
        first = min(last, round(start * file.samplerate))
        _check_length(path, (last - first) / file.samplerate)
        file.seek(first)
        samples = file.read(last - first, dtype="float32", always_2d=True)
        if not len(samples):
            return None
        return resample(np.ascontiguousarray(samples.mean(1)), file.samplerate)


def _check_length(path: Path, seconds: Seconds) -> None:
    if seconds > LONGEST:
        raise DataError(
            str(path), "too_long", f"lasts {seconds:.0f} s, at most {LONGEST:.0f} s at once"
        )


def _decode(
    path: Path, container: InputContainer, start: Seconds, end: Seconds | None
) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None]:
    """One pass over the file: samples and pictures with their times."""
    if end is not None:
        _check_length(path, end - start)
    sound = container.streams.audio[0] if container.streams.audio else None
    cover = av.stream.Disposition.attached_pic
    pictures = next((s for s in container.streams.video if not s.disposition & cover), None)
    streams = [stream for stream in (sound, pictures) if stream is not None]
    if not streams:
        return None, None
    if pictures is not None:
        pictures.thread_type = "NONE"
        if pictures.width * pictures.height > MOST_PIXELS:
            raise DataError(
                str(path), "too_large", f"pictures of {pictures.width} x {pictures.height} pixels"
            )
    stop = end if end is not None else start + LONGEST + 1
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    chunks: list[tuple[float, NDArray[np.float32]]] = []
    frames: list[tuple[float, NDArray[np.uint8]]] = []
    origin = (container.start_time or 0) / av.time_base
    if start > 1.0:
        container.seek(int((origin + start - 1.0) * av.time_base))
    over = {stream.index: False for stream in streams}
    for packet in container.demux(streams):
        if all(over.values()):
            break
        for frame in packet.decode():
            if not isinstance(frame, (av.AudioFrame, av.VideoFrame)):
                continue
            time = (frame.time if frame.time is not None else 0.0) - origin
            if time >= stop:
                over[packet.stream.index] = True
            elif isinstance(frame, av.AudioFrame):
                at = time
                for part in resampler.resample(frame):
                    chunks.append((at, _samples(part)))
                    at += part.samples / SAMPLE_RATE
            else:
                frames.append((time, _luma(frame)))
    if chunks:
        at = chunks[-1][0] + len(chunks[-1][1]) / SAMPLE_RATE
        chunks += [(at, _samples(part)) for part in resampler.resample(None)]
    if end is None:
        lasts = max([t for t, _ in frames] + [t for t, _ in chunks], default=start) - start
        _check_length(path, lasts)
    return _lay_out_sound(chunks, start, end), _lay_out_pictures(frames, start, end)


def _samples(part: av.AudioFrame) -> NDArray[np.float32]:
    return part.to_ndarray().reshape(-1).astype(np.float32, copy=False)


def _luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """(height, width) uint8: the Y plane where there is one, upright, at most 720 pixels a side."""
    layout = frame.format
    if layout.is_planar and not layout.is_rgb and layout.components[0].bits == 8:
        plane = frame.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        grey: NDArray[np.uint8] = rows[: frame.height, : frame.width]
    else:
        grey = frame.to_ndarray(format="gray").astype(np.uint8)
    turns = round(frame.rotation / 90) % 4
    if turns:
        grey = np.rot90(grey, turns)
    scale = LARGEST_SIDE / max(grey.shape)
    if scale >= 1:
        return grey.copy()
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return cv2.resize(np.ascontiguousarray(grey), size, interpolation=cv2.INTER_AREA).astype(
        np.uint8, copy=False
    )


def _lay_out_sound(
    chunks: list[tuple[float, NDArray[np.float32]]], start: Seconds, end: Seconds | None
) -> NDArray[np.float32] | None:
    """Samples at their times; a step of up to 40 ms between chunks counts as rounding."""
    if not chunks:
        return None
    places, at = [], round(chunks[0][0] * SAMPLE_RATE)
    for time, samples in chunks:
        wanted = round(time * SAMPLE_RATE)
        if abs(wanted - at) > 0.04 * SAMPLE_RATE:
            at = wanted
        places.append(at)
        at += len(samples)
    first = round(start * SAMPLE_RATE)
    length = max(place + len(s) for place, (_, s) in zip(places, chunks, strict=True)) - first
    if end is not None:
        length = min(length, round((end - start) * SAMPLE_RATE))
    if length <= 0:
        return None
    sound = np.zeros(length, np.float32)
    for place, (_, samples) in zip(places, chunks, strict=True):
        low, high = max(place, first), min(place + len(samples), first + length)
        if low < high:
            sound[low - first : high - first] = samples[low - place : high - place]
    return sound


def _lay_out_pictures(
    frames: list[tuple[float, NDArray[np.uint8]]], start: Seconds, end: Seconds | None
) -> NDArray[np.uint8] | None:
    """At each 1/25 s the picture that was on screen: the last one not later."""
    if not frames:
        return None
    frames = sorted(frames, key=lambda pair: pair[0])
    times = np.array([time for time, _ in frames])
    shape = frames[0][1].shape
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 1 / VIDEO_RATE
    last = times[-1] + usual if end is None else min(end, times[-1] + usual)
    count = max(1, round((last - start) * VIDEO_RATE)) if last > start else 0
    if not count:
        return None
    wanted = (
        start + (np.arange(count) + 0.5) / VIDEO_RATE
    )  # middles of the steps: no rounding traps
    chosen = np.clip(np.searchsorted(times, wanted, side="right") - 1, 0, None)
    video = np.empty((count, *shape), np.uint8)
    for place, index in enumerate(chosen):
        picture = frames[index][1]
        video[place] = picture if picture.shape == shape else cv2.resize(picture, shape[::-1])
    return video


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:80] if str(error) else type(error).__name__
