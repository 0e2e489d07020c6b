"""Media files to sound at 16 kHz and grey pictures at 25 Hz, on one clock.

Both streams are laid out from time 0 of the container by their own timestamps: late starts,
variable frame rates and gaps come out right. Damage raises; a stream that is not there is None.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.tracks import Pictures, Sound, Track
from mmembed.errors import DataError
from mmembed.features.audio import SAMPLE_RATE, resample
from mmembed.features.video import VIDEO_RATE

LONGEST: Final[Seconds] = 300.0  # bounds memory: 1 GB of 480 x 270 pictures
LONGEST_RECORDING: Final[Seconds] = 86_400.0  # a day: its crops take 9 GB of disk
BLOCK: Final = 12  # whole seconds of a recording that are decoded at once
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


class Block(NamedTuple):
    """The next part of one stream of a recording.

    Attributes:
        stream: "audio" or "video".
        values: (samples,) float32 mono, or (T, height, width) uint8 luma.
        rate: of the samples, as in the file, or of the pictures, 25; Hz.
    """

    stream: str
    values: NDArray[Any]
    rate: int


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
    with _open(path, data) as file:
        _check_part(path, start, end, LONGEST)
        if not isinstance(file, soundfile.SoundFile):
            return _read_container(path, file, start, end, streams)
        blocks = list(_stream_sound(path, file, start, end, streams, LONGEST))
        samples = np.concatenate([np.zeros(0, np.float32), *(block.values for block in blocks)])
        return _clip(path, to_16k(path, samples, file.samplerate), None)


def stream_clip(
    path: Path,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    streams: Sequence[str] = STREAMS,
    data: bytes | None = None,
) -> Iterator[Block]:
    """Decode what `load_clip` would refuse as too long, in blocks of `BLOCK` seconds.

    One pass over the file, whatever its kind; arguments and errors are those of `load_clip`, except
    that up to `LONGEST_RECORDING` may be wanted.

    Yields:
        The blocks of both streams as they are complete; those of each are in order, and all but the
        last last `BLOCK` seconds.
    """
    held, longest = False, LONGEST_RECORDING
    with _open(path, data) as file:
        _check_part(path, start, end, longest)
        if isinstance(file, soundfile.SoundFile):
            blocks = _stream_sound(path, file, start, end, streams, longest)
        else:
            blocks = _stream_container(path, file, start, end, streams, longest)
        for block in blocks:
            held = True
            yield block
    if not held:
        raise _nothing(path)


@contextmanager
def _open(path: Path, data: bytes | None) -> Iterator[soundfile.SoundFile | InputContainer]:
    """The file in the decoder for its kind; what that finds wrong is a DataError."""
    kind = media_kind(path, data)
    try:
        if kind in SOUND_KINDS:
            try:
                # A name may be no text.
                file = soundfile.SoundFile(os.fsencode(path) if data is None else BytesIO(data))
            except soundfile.LibsndfileError:
                pass  # a codec that only FFmpeg knows, or damage that it will name
            else:
                with file:
                    yield file
                return
        options = {"protocol_whitelist": "file"}
        # FFmpeg takes "12:30.mp4" for a protocol.
        source = str(path.absolute()) if data is None else BytesIO(data)
        with av.open(source, "r", format=kind, options=options, metadata_errors="ignore") as opened:
            yield opened
    except (av.FFmpegError, soundfile.SoundFileError) as error:
        # FFmpeg's whole message would name the file again.
        raise _damaged(path, getattr(error, "strerror", None) or str(error)) from None


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


def _check_part(path: Path, start: Seconds, end: Seconds | None, longest: Seconds) -> None:
    if not 0 <= start < (np.inf if end is None else end):
        raise DataError(str(path), "too_short", f"nothing lies from {start} s to {end} s")
    if end is not None:
        _check_length(path, end - start, longest)


def _check_length(path: Path, seconds: Seconds, longest: Seconds) -> None:
    if seconds > longest:
        raise DataError(
            str(path),
            "too_long",
            f"lasts {seconds:.0f} s, at most {longest:.0f} s at once: give start and end",
        )


def _nothing(path: Path) -> DataError:
    return DataError(str(path), "too_short", "nothing to decode: no sample and no picture")


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
        raise _nothing(path)
    _check_length(path, seconds, LONGEST)
    return Clip(audio, video, seconds)


def to_16k(path: Path, samples: NDArray[np.float32], rate: int) -> NDArray[np.float32] | None:
    """Decoded sound at `rate` to 16 kHz in [-1, 1], None if there is none; raises DataError."""
    if not len(samples):
        return None
    if not np.isfinite(samples).all():
        raise _damaged(path, "sound holds infinite values")
    return np.clip(resample(samples, rate), -1.0, 1.0)


def _stream_sound(
    path: Path,
    file: soundfile.SoundFile,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
    longest: Seconds,
) -> Iterator[Block]:
    if "audio" not in streams:
        raise _without(path, streams)
    rate = int(file.samplerate)
    _check_rate(path, rate)
    last = file.frames if end is None else min(file.frames, round(end * rate))
    count = max(0, last - round(start * rate))
    _check_length(path, count / rate, longest)
    if file.frames == 0 and file.format == "OGG":
        raise _damaged(path, "no sample is there")  # an ogg file that was cut short says so
    if count:
        file.seek(last - count)
    for first in range(0, count, BLOCK * rate):
        wanted = min(BLOCK * rate, count - first)
        samples = file.read(wanted, dtype="float32", always_2d=True)
        if len(samples) < wanted:  # than the header says
            raise _damaged(path, f"{first + len(samples)} of {count} samples are there")
        yield Block("audio", samples.mean(axis=1), rate)


def _read_container(
    path: Path,
    container: InputContainer,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
) -> Clip:
    """One pass over the file: each frame goes to its track until both have reached the end."""
    tracks = _open_tracks(path, container, start, end, streams, LONGEST)
    for track, frame, time in _frames(path, container, tracks, start):
        track.add(frame, time)
    audio = video = None
    for track in tracks.values():
        if isinstance(track, Sound):
            audio = to_16k(path, track.take(track.held), track.rate)
        else:
            video = track.finish()
    return _clip(path, audio, video)


def _stream_container(
    path: Path,
    container: InputContainer,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
    longest: Seconds,
) -> Iterator[Block]:
    tracks = _open_tracks(path, container, start, end, streams, longest)

    def ready(track: Track, least: int = 1) -> Iterator[Block]:
        """What the track holds, in blocks; the last of fewer than `least` stays."""
        while track.held >= least:
            name = "audio" if isinstance(track, Sound) else "video"
            yield Block(name, track.take(BLOCK * track.rate), track.rate)
            _check_length(path, track.taken / track.rate, longest)

    for track, frame, time in _frames(path, container, tracks, start):
        if isinstance(track, Pictures) and time is not None:
            # A picture may stay for hours.
            while not track.show_until(time, BLOCK * VIDEO_RATE):
                yield from ready(track, BLOCK * VIDEO_RATE)
        track.add(frame, time)
        yield from ready(track, BLOCK * track.rate)
    for track in tracks.values():
        if isinstance(track, Pictures):
            while not track.show_until(track.shown_until, BLOCK * VIDEO_RATE):
                yield from ready(track, BLOCK * VIDEO_RATE)
            track.close()
        yield from ready(track)


def _frames(
    path: Path, container: InputContainer, tracks: Mapping[int, Track], start: Seconds
) -> Iterator[tuple[Track, Any, Seconds | None]]:
    """Decoded frames with the track of each and its time, until all tracks are done."""
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
            if isinstance(frame, av.AudioFrame) and frame.sample_rate != track.rate:
                raise _damaged(path, "the sample rate changes")
            if isinstance(frame, av.AudioFrame | av.VideoFrame):
                yield track, frame, None if frame.time is None else frame.time - origin
        if all(track.done for track in tracks.values()):
            break


def _open_tracks(
    path: Path,
    container: InputContainer,
    start: Seconds,
    end: Seconds | None,
    streams: Sequence[str],
    longest: Seconds,
) -> dict[int, Track]:
    """A track for the first stream of each wanted kind, by the index of the stream."""
    stop = start + longest + 1.0 if end is None else end
    tracks: dict[int, Track] = {}
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
    if end is None and container.duration is not None:
        _check_length(path, container.duration / av.time_base - start, longest)
    return tracks
