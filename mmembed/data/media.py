"""Media files to sound at 16 kHz and grey pictures at 25 Hz, on one clock.

Both streams are laid out from time 0 of the container by their own timestamps: late starts,
variable frame rates and gaps come out right. Damage raises; a stream that is not there is None.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import av
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.tracks import Pictures, Sound
from mmembed.errors import DataError
from mmembed.features.audio import SAMPLE_RATE, resample
from mmembed.features.video import VIDEO_RATE

LONGEST: Final[Seconds] = 300.0  # bounds memory: 1 GB of 480 x 270 pictures
MOST_PIXELS: Final = 8192 * 8192  # of a declared picture; more is refused before decoding
SAMPLE_RATES: Final = range(1_000, 768_001)  # Hz, of sound that is believed
WARM_UP: Final[Seconds] = 1.0  # decoded and dropped before `start`: codecs look back
HEAD: Final = 192  # bytes that tell the kind of a file
MOST_RIFF: Final = 0x7FFF0000  # bytes; headers of unfinished recordings claim more

SIGNATURES: Final = (
    (0, b"fLaC", "flac"), (0, b"OggS", "ogg"), (8, b"WAVE", "wav"), (8, b"AVI ", "avi"),
    (0, b"ID3", "mp3"), (0, b"\xff\xfb", "mp3"), (0, b"\xff\xf3", "mp3"), (0, b"\xff\xf2", "mp3"),
    (0, b"\xff\xf1", "aac"), (0, b"\xff\xf9", "aac"), (4, b"ftyp", "mov"), (4, b"moov", "mov"),
    (4, b"mdat", "mov"), (4, b"wide", "mov"), (4, b"free", "mov"), (4, b"skip", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"), (0, b"\0\0\1\xba", "mpeg"), (0, b"\0\0\1\xb3", "mpegvideo"),
    (0, b"FLV\x01", "flv"), (0, b"0&\xb2u", "asf"), (0, b"G", "mpegts"),
)  # fmt: skip
"""Offset, bytes and demuxer of the kinds that are opened. Text, so no playlist, is among them, and
naming the demuxer keeps FFmpeg from finding a playlist behind a signature."""
SOUND_KINDS: Final = ("wav", "flac", "ogg", "mp3")
SEEKABLE_KINDS: Final = ("mov", "matroska")  # with an index; elsewhere a seek may land too late


@dataclass(frozen=True)
class Clip:
    """A decoded clip.

    Attributes:
        audio: (samples,) float32 mono at 16 kHz in [-1, 1], or None.
        video: (T, height, width) uint8 luma at 25 Hz, or None.
        seconds: of the longer of both.
    """

    audio: NDArray[np.float32] | None
    video: NDArray[np.uint8] | None
    seconds: Seconds


def load_clip(
    path: Path,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    streams: Sequence[str] = STREAMS,
    data: bytes | None = None,
) -> Clip:
    """Decode sound and picture of a file, or of a part of it.

    Args:
        path: a sound or video file.
        start: of the part, from time 0 of the container.
        end: of the part; None = the end of the file.
        streams: those wanted; others are not decoded.
        data: the bytes of the file where it is part of another; `path` is then only its name.

    Raises:
        DataError: with reason "missing", "unreadable", "empty", "not_media", "no_streams",
            "too_short", "too_long", "too_large" or "damaged".
    """
    kind = media_kind(path, data)
    if not 0 <= start < (np.inf if end is None else end):
        raise DataError(str(path), "too_short", f"nothing lies from {start} s to {end} s")
    if end is not None:
        _check_length(path, end - start)
    try:
        if kind in SOUND_KINDS:
            try:
                # A name may be no text.
                file = soundfile.SoundFile(os.fsencode(path) if data is None else BytesIO(data))
            except soundfile.LibsndfileError:
                pass  # a codec that only FFmpeg knows, or damage that it will name
            else:
                with file:
                    return _read_sound(path, file, start, end, streams)
        options = {"protocol_whitelist": "file"}
        # FFmpeg takes "12:30.mp4" for a protocol.
        source = str(path.absolute()) if data is None else BytesIO(data)
        opened = av.open(source, "r", format=kind, options=options, metadata_errors="ignore")
        with opened as file:
            return _read_container(path, file, start, end, streams)
    except (av.FFmpegError, soundfile.SoundFileError) as error:
        raise _damaged(path, str(error)) from None


def media_kind(path: Path, data: bytes | None = None, size: int | None = None) -> str:
    """The demuxer for the file, by its first bytes; nothing is decoded.

    Args:
        path: of the file.
        data: its bytes, or the first `HEAD` of them, where it is no file here.
        size: bytes of the whole file, where `data` is its beginning.

    Raises:
        DataError: with reason "missing", "unreadable", "empty", "not_media" or "damaged".
    """
    try:
        if data is not None:
            head, size = data[:HEAD], len(data) if size is None else size
        else:
            if path.exists() and not path.is_file():
                raise DataError(str(path), "not_media", "not a file")
            with path.open("rb") as file:
                head, size = file.read(HEAD), path.stat().st_size
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such file") from None
    except (OSError, ValueError) as error:  # no permission, an impossible name
        raise DataError(str(path), "unreadable", f"cannot be opened ({error})") from None
    if not head:
        raise DataError(str(path), "empty", "the file is empty")
    for offset, signature, kind in SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            if kind == "wav":
                _check_whole_riff(path, head, size)
            if kind != "mpegts" or head[188:189] == signature:  # the next packet starts there
                return kind
    raise DataError(
        str(path), "not_media", "not a media file of a known kind (its first bytes say so)"
    )


def _check_whole_riff(path: Path, head: bytes, size: int) -> None:
    """Both decoders read a wav file that was cut short without a word."""
    declared = int.from_bytes(head[4:8], "little") + 8
    if size < declared < MOST_RIFF:
        raise _damaged(path, f"{size} of {declared} bytes are there")


def _damaged(path: Path, why: str) -> DataError:
    return DataError(str(path), "damaged", f"cannot be decoded ({' '.join(why.split())[:80]})")


def _without(path: Path, streams: Sequence[str]) -> DataError:
    wanted = " or ".join(stream for stream in ("audio", "video") if stream in streams)
    return DataError(str(path), "no_streams", f"holds no {wanted}")


def _check_length(path: Path, seconds: Seconds) -> None:
    if seconds > LONGEST:
        raise DataError(
            str(path),
            "too_long",
            f"lasts {seconds:.0f} s, at most {LONGEST:.0f} s at once: give start and end",
        )


def _check_rate(path: Path, rate: int) -> None:
    if rate not in SAMPLE_RATES:
        raise _damaged(path, f"sound at {rate} Hz")


def _check_codec(path: Path, stream: av.AudioStream | av.VideoStream) -> None:
    """A stream of a codec that FFmpeg does not know has no attributes of sound or pictures."""
    if stream.codec_context is None:
        raise _damaged(path, f"no decoder for its {stream.type}")


def _clip(path: Path, audio: NDArray[np.float32] | None, video: NDArray[np.uint8] | None) -> Clip:
    """What was decoded, once there is some of it and it is not too much."""
    seconds = max(
        0.0 if audio is None else len(audio) / SAMPLE_RATE,
        0.0 if video is None else len(video) / VIDEO_RATE,
    )
    if not seconds:
        raise DataError(str(path), "too_short", "nothing to decode: no sample and no picture")
    _check_length(path, seconds)
    return Clip(audio, video, seconds)


def _to_16k(path: Path, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32] | None:
    if not len(samples):
        return None
    if not np.isfinite(samples).all():
        raise _damaged(path, "sound holds infinite values")
    return np.clip(resample(samples, rate), -1.0, 1.0)


def _read_sound(
    path: Path,
    file: soundfile.SoundFile,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
) -> Clip:
    if "audio" not in streams:
        raise _without(path, streams)
    rate = file.samplerate
    _check_rate(path, rate)
    last = file.frames if end is None else min(file.frames, round(end * rate))
    count = max(0, last - round(start * rate))
    _check_length(path, count / rate)
    if count:
        file.seek(last - count)
    samples = file.read(count, dtype="float32", always_2d=True)
    # A file cut short holds fewer samples than its header says; an ogg file then says none.
    if len(samples) < count or (file.frames == 0 and file.format == "OGG"):
        raise _damaged(path, f"{len(samples)} of {count} samples are there")
    return _clip(path, _to_16k(path, samples.mean(axis=1), rate), None)


def _read_container(
    path: Path,
    container: InputContainer,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
) -> Clip:
    """One pass over the file: each frame goes to its track until both have reached the end."""
    tracks = _open_tracks(path, container, start, end, streams)
    if end is None and container.duration is not None:
        _check_length(path, container.duration / av.time_base - start)
    origin = (container.start_time or 0) / av.time_base
    if start > WARM_UP and container.format.name.split(",")[0] in SEEKABLE_KINDS:
        container.seek(round((origin + start - WARM_UP) * av.time_base))
    for packet in container.demux([container.streams[index] for index in tracks]):
        track = tracks.get(packet.stream_index)
        if track is None:
            continue  # the empty last packet of a stream that was not asked for
        if packet.is_corrupt:
            raise _damaged(path, "the file is cut short or overwritten")
        for frame in () if track.done else packet.decode():
            if isinstance(frame, av.VideoFrame) and isinstance(track, Pictures):
                track.add(frame, None if frame.time is None else frame.time - origin)
            elif isinstance(frame, av.AudioFrame) and isinstance(track, Sound):
                if frame.sample_rate != track.rate:
                    raise _damaged(path, "the sample rate changes")
                track.add(frame, None if frame.time is None else frame.time - origin)
        if all(track.done for track in tracks.values()):
            break
    audio = video = None
    for track in tracks.values():
        if isinstance(track, Sound):
            audio = _to_16k(path, track.finish(), track.rate)
        else:
            video = track.finish()
    return _clip(path, audio, video)


def _open_tracks(
    path: Path,
    container: InputContainer,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
) -> dict[int, Sound | Pictures]:
    """A track for the first stream of each wanted kind, by the index of the stream."""
    stop = start + LONGEST + 1.0 if end is None else end
    tracks: dict[int, Sound | Pictures] = {}
    if "audio" in streams and container.streams.audio:
        sound = container.streams.audio[0]
        _check_codec(path, sound)
        _check_rate(path, sound.rate)
        tracks[sound.index] = Sound(sound.rate, start, stop)
    cover = av.stream.Disposition.attached_pic
    films = [film for film in container.streams.video if not film.disposition & cover]
    if "video" in streams and films:
        _check_codec(path, films[0])
        width, height = films[0].width, films[0].height
        if width * height > MOST_PIXELS:
            raise DataError(str(path), "too_large", f"pictures of {width} x {height} pixels")
        films[0].thread_type = "NONE"  # one clip, one core
        tracks[films[0].index] = Pictures(start, stop)
    if not tracks:
        raise _without(path, streams)
    return tracks
