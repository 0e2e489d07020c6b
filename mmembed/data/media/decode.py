"""Media files to sound at 16 kHz and grey pictures at 25 Hz, on one clock.

Both streams are laid out from time 0 of the container by their own timestamps: late starts,
variable frame rates and gaps come out right. What headers say of lengths is a hint: a file is read
to its end. Damage raises; a stream that is not there is None; what is passed over is noted.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import av
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.media.container import (
    Wanted,
    check_rate,
    open_clock,
    open_tracks,
    read_frames,
    without,
)
from mmembed.data.media.downmix import ToMono, join, mid_and_side
from mmembed.data.media.open import damaged, open_media
from mmembed.data.media.timeline import Pictures, Sound, Track
from mmembed.errors import UsageError
from mmembed.features.audio import SAMPLE_RATE, resample
from mmembed.features.video import VIDEO_RATE

LONGEST: Final[Seconds] = 300.0  # bounds memory: 1 GB of 480 x 270 pictures
MAX_SECONDS: Final[Seconds] = 14_400.0  # four hours, of a recording, unless more is asked for
LONGEST_RECORDING: Final[Seconds] = 86_400.0  # a day: its features take 10 GB of disk
BLOCK: Final = 12  # whole seconds of a recording that are decoded at once


def check_longest(seconds: Seconds) -> None:
    """Refuse a limit for recordings that is none, with a UsageError."""
    if not LONGEST <= seconds <= LONGEST_RECORDING:
        limits = f"from {LONGEST:.0f} to {LONGEST_RECORDING:.0f}"
        raise UsageError(f"max_seconds {seconds:g}: give a number {limits}")


@dataclass(frozen=True)
class DecodedMedia:
    """A decoded clip.

    Attributes:
        audio: (samples,) float32 mono at 16 kHz in [-1, 1], or None. Floats that were beyond full
            scale are beyond it still.
        video: (T, height, width) uint8 luma from 16 to 235 at 25 Hz, or None.
        seconds: of the longer of both.
        notes: what was passed over and what was not taken as it is, each in some words.
    """

    audio: NDArray[np.float32] | None
    video: NDArray[np.uint8] | None
    seconds: Seconds
    notes: tuple[str, ...] = ()


class MediaBlock(NamedTuple):
    """The next part of one stream of a recording.

    Attributes:
        stream: "audio" or "video".
        values: (samples,) float32 mono, or (T, height, width) uint8 luma.
        rate: of the samples, as in the file, or of the pictures, 25; Hz.
        peak: full scale, or the highest sample so far where that is beyond.
    """

    stream: str
    values: NDArray[Any]
    rate: int
    peak: float = 1.0


def load_clip(
    path: Path,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    streams: Sequence[str] = STREAMS,
    data: bytes | None = None,
) -> DecodedMedia:
    """Decode sound and picture of a file, or of a part of it.

    Args:
        path: a sound or video file.
        start: of the part, from time 0 of the container.
        end: of the part; None = the end of the file. One behind it means the end of the file, too,
            and is noted.
        streams: those wanted; others are not decoded.
        data: the bytes of the file where it is part of another; `path` is then only its name.

    Raises:
        DataError: with reason "missing", "unreadable", "empty", "not_media", "no_streams",
            "too_short", "too_long", "too_large", "scale" or "damaged".
    """
    wanted = Wanted(path, start, end, streams, LONGEST)
    audio = video = None
    with _open(wanted, data) as file:
        if isinstance(file, soundfile.SoundFile):
            samples = join(list(_read_sound(wanted, file)))
            audio = _finish_sound(wanted, samples, file.samplerate, not _holds_floats(file))
        else:
            tracks = open_tracks(wanted, file)
            for track, frame, time in read_frames(wanted, file, tracks):
                track.add(frame, time)
            for track in tracks.values():
                wanted.note(*track.notes)
                if isinstance(track, Sound):
                    samples = track.take(track.held)
                    audio = _finish_sound(wanted, samples, track.rate, track.limited)
                else:
                    video = track.finish()
    seconds = max(
        0.0 if audio is None else len(audio) / SAMPLE_RATE,
        0.0 if video is None else len(video) / VIDEO_RATE,
    )
    wanted.check_length(seconds)
    wanted.note_end(seconds)
    return DecodedMedia(audio, video, seconds, tuple(wanted.notes))


def stream_clip(
    path: Path,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    streams: Sequence[str] = STREAMS,
    data: bytes | None = None,
    longest: Seconds = MAX_SECONDS,
) -> Generator[MediaBlock, None, tuple[str, ...]]:
    """Decode what `load_clip` would refuse as too long, in blocks of `BLOCK` seconds.

    One pass over the file, whatever its kind; arguments and errors are those of `load_clip`.

    Args:
        path: see `load_clip`, as for the following.
        start: likewise.
        end: likewise.
        streams: likewise.
        data: likewise.
        longest: the most that may be wanted.

    Yields:
        The blocks of both streams as they are complete; those of each are in order, and all but the
        last last `BLOCK` seconds.

    Returns:
        The notes of the clip.
    """
    advice = "give start and end, or allow more with max_seconds"
    wanted = Wanted(path, start, end, streams, longest, advice)
    seconds = 0.0
    lasted: dict[str, int] = {}
    with _open(wanted, data) as file:
        blocks = _stream_sound if isinstance(file, soundfile.SoundFile) else _stream_container
        for block in blocks(wanted, file):
            lasted[block.stream] = lasted.get(block.stream, 0) + len(block.values)
            seconds = max(seconds, lasted[block.stream] / block.rate)
            yield block
    wanted.note_end(seconds)
    return tuple(wanted.notes)


@contextmanager
def _open(wanted: Wanted, data: bytes | None) -> Iterator[soundfile.SoundFile | InputContainer]:
    """The file in the decoder for its kind, unless it is too long."""
    with open_media(wanted.path, data, wanted.end) as opened:
        believed = None if wanted.end is not None else _stated_length(opened.file)
        if believed is None or believed - wanted.start <= wanted.longest:
            wanted.note(*opened.notes)
            yield opened.file
            return
        if isinstance(opened.file, soundfile.SoundFile) or _goes_beyond(wanted, opened.file):
            wanted.check_length(believed - wanted.start)
    with open_media(wanted.path, data) as opened:  # its header claims too much
        wanted.note(*opened.notes)
        yield opened.file


def _stated_length(file: soundfile.SoundFile | InputContainer) -> Seconds | None:
    if isinstance(file, soundfile.SoundFile):
        return float(file.frames / file.samplerate)
    return None if file.duration is None else file.duration / av.time_base


def _goes_beyond(wanted: Wanted, container: InputContainer) -> bool:
    """Whether there is anything at the end of what is allowed."""
    clock, chosen = open_clock(container), [*container.streams.audio, *container.streams.video]
    return any(
        packet.dts is not None
        and clock.place(packet.stream.index, float(packet.dts * packet.time_base), 0.0)
        > wanted.stop - 1
        for packet in container.demux(chosen)
    )


def to_16k(
    samples: NDArray[np.float32], rate: int, peak: float = 1.0
) -> NDArray[np.float32] | None:
    """Decoded sound at `rate` to 16 kHz, nowhere above `peak`; None if there is none."""
    return np.clip(resample(samples, rate), -peak, peak) if len(samples) else None


def _finish_sound(
    wanted: Wanted, samples: NDArray[np.float32], rate: int, limited: bool
) -> NDArray[np.float32] | None:
    to_mono = ToMono(wanted.path, limited=limited)
    mono = to_mono(samples)
    wanted.note(*to_mono.notes)
    return to_16k(mono, rate, to_mono.peak)


def _holds_floats(file: soundfile.SoundFile) -> bool:
    return file.subtype in ("FLOAT", "DOUBLE")


def _read_sound(wanted: Wanted, file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    """The samples of a sound file, mid and side, in blocks."""
    if "audio" not in wanted.streams:
        raise without(wanted)
    rate = int(file.samplerate)
    check_rate(wanted.path, rate)
    last = file.frames if wanted.end is None else min(file.frames, round(wanted.end * rate))
    count = max(0, last - round(wanted.start * rate))
    wanted.check_length(count / rate)
    if file.frames == 0 and file.format == "OGG":
        raise damaged(wanted.path, "no sample is there")  # an ogg file that was cut short says so
    if count:
        file.seek(last - count)
    for first in range(0, count, BLOCK * rate):
        size = min(BLOCK * rate, count - first)
        samples = file.read(size, dtype="float32", always_2d=True)
        if len(samples) < size:  # than the header says
            why = f"{first + len(samples)} of {count} samples are there"
            raise damaged(wanted.path, why)
        yield mid_and_side(samples.T, [""] * file.channels)


def _stream_sound(wanted: Wanted, file: soundfile.SoundFile) -> Iterator[MediaBlock]:
    to_mono = ToMono(wanted.path, limited=not _holds_floats(file))
    for samples in _read_sound(wanted, file):
        yield MediaBlock("audio", to_mono(samples), int(file.samplerate), to_mono.peak)
    wanted.note(*to_mono.notes)


def _stream_container(wanted: Wanted, container: InputContainer) -> Iterator[MediaBlock]:
    tracks = open_tracks(wanted, container)
    to_mono = ToMono(wanted.path, limited=False)

    def ready(track: Track, least: int = 1) -> Iterator[MediaBlock]:
        """What the track holds, in blocks; the last of fewer than `least` stays."""
        while track.held >= least:
            if isinstance(track, Sound):
                mono = to_mono(track.take(BLOCK * track.rate))
                yield MediaBlock("audio", mono, track.rate, 1.0 if track.limited else to_mono.peak)
            else:
                yield MediaBlock("video", track.take(BLOCK * track.rate), track.rate)
            wanted.check_length(track.taken / track.rate)

    for track, frame, time in read_frames(wanted, container, tracks):
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
        wanted.note(*track.notes)
    wanted.note(*to_mono.notes)
