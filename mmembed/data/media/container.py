"""What a container holds, frame by frame, with the track of each and its time in the clip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.container import InputContainer

from mmembed.config import Seconds
from mmembed.data.media.open import choose_streams, damaged, stream_name
from mmembed.data.media.timeline import (
    LEAST_AHEAD,
    LEAST_BACK,
    Clock,
    Pictures,
    Sound,
    Track,
    lasting,
)
from mmembed.errors import DataError

BROADCAST_KINDS: Final = ("mpegts", "mpeg")  # whose times may jump
MOST_PIXELS: Final = 8192 * 8192  # of a declared picture; more is refused before decoding
SAMPLE_RATES: Final = range(1_000, 768_001)  # Hz, of sound that is believed
WARM_UP: Final[Seconds] = 1.0  # decoded and dropped before `start`: codecs look back
BEHIND_END: Final[Seconds] = 0.1  # that the end of a part may lie behind the end of the file unsaid
SEEKABLE_KINDS: Final = ("mov", "matroska")  # with an index; elsewhere a seek may land too late
JOINT: Final[Seconds] = 1.0  # within which times go back, behind a packet that is torn off
UNTIMED_KINDS: Final = ("aac", "ac3", "dts", "eac3", "flac", "loas", "mlp", "mp3", "truehd")
_UNKNOWN: Final = (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)


@dataclass
class Wanted:
    """What is wanted of a file, and what is to be said of it."""

    path: Path
    start: Seconds
    end: Seconds | None
    streams: Sequence[str]
    longest: Seconds
    advice: str = "give start and end"
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.start < (np.inf if self.end is None else self.end):
            message = f"nothing lies from {self.start} s to {self.end} s"
            raise DataError(str(self.path), "too_short", message)
        if self.end is not None:
            self.check_length(self.end - self.start)

    @property
    def stop(self) -> Seconds:
        """Where decoding ends at the latest."""
        return self.start + self.longest + 1.0 if self.end is None else self.end

    def check_length(self, seconds: Seconds) -> None:
        if seconds > self.longest:
            message = f"lasts {seconds:.0f} s, at most {self.longest:.0f} s at once"
            raise DataError(str(self.path), "too_long", f"{message}: {self.advice}")

    def note(self, *notes: str) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def note_end(self, seconds: Seconds) -> None:
        """Say how much of the part lies behind the end of the file; raise if all does."""
        if not seconds:
            where = f" from {self.start} s on" if self.start else ""
            message = f"nothing to decode{where}: no sample and no picture"
            raise DataError(str(self.path), "too_short", message)
        if self.end is not None and self.end - self.start - seconds > BEHIND_END:
            self.note(
                f"the file ends at {self.start + seconds:.2f} s, before the end that was given"
            )


def open_tracks(wanted: Wanted, container: InputContainer) -> dict[int, Track]:
    """A track for each wanted kind, by the index of the stream that is taken for it."""
    tracks: dict[int, Track] = {}
    chosen = choose_streams(container, wanted.streams)
    wanted.note(*chosen.notes)
    for stream in chosen.streams:
        if stream.type == "audio":
            tracks[stream.index] = Sound(wanted.start, wanted.stop, limited=not _is_float(stream))
        else:
            _check_pixels(wanted.path, stream.width, stream.height)
            stream.thread_type = "NONE"  # one clip, one core
            tracks[stream.index] = Pictures(wanted.start, wanted.stop)
    if not tracks and chosen.unknown:
        raise damaged(wanted.path, f"no decoder for its {' and '.join(chosen.unknown)}")
    if not tracks:
        raise without(wanted)
    return tracks


def _is_float(stream: Any) -> bool:
    return bool(stream.codec_context.name.startswith("pcm_f"))


def open_clock(container: InputContainer) -> Clock:
    """The clock of a container that is read from its beginning."""
    origin = (container.start_time or 0) / av.time_base
    return Clock(origin, breaks=container.format.name in BROADCAST_KINDS)


def read_frames(
    wanted: Wanted, container: InputContainer, tracks: dict[int, Track]
) -> Iterator[tuple[Track, Any, Seconds | None]]:
    """Decoded frames with the track of each and its time, until all tracks are done.

    A track whose codec turns out to be unknown is removed from `tracks`, if it is not the only one.
    """
    kind = container.format.name.split(",")[0]
    origin = (container.start_time or 0) / av.time_base
    breaks = kind in BROADCAST_KINDS
    clock = open_clock(container)
    chosen = [container.streams[index] for index in tracks]
    if wanted.start > WARM_UP and (kind in SEEKABLE_KINDS or all(map(_is_pcm, chosen))):
        container.seek(round((origin + wanted.start - WARM_UP) * av.time_base))
    for packet in _sound_packets(wanted, container, chosen, breaks):
        # Not its stream_index: that is 0 in the empty last packets, which empty the decoders.
        index = packet.stream.index
        track = tracks.get(index)
        if track is None or track.done:
            continue
        if not breaks and wanted.end is None and packet.pts is not None:
            # Before the gap to it is filled.
            wanted.check_length(float(packet.pts * packet.time_base) - origin - wanted.start - 1.0)
        for frame in _decode(wanted, packet, kind, tracks):
            _check_frame(wanted, frame)
            time = frame.time
            if kind in UNTIMED_KINDS and isinstance(frame, av.AudioFrame):
                time = clock.follow(index, lasting(frame))
            elif time is not None:
                time = clock.place(index, time, lasting(frame))
            if isinstance(frame, av.AudioFrame) == isinstance(track, Sound):
                yield track, frame, time
        if all(track.done for track in tracks.values()):
            break
    if clock.recordings > 1:
        wanted.note(f"{clock.recordings} recordings joined in one file")


def _sound_packets(
    wanted: Wanted, container: InputContainer, chosen: list[Any], breaks: bool
) -> Iterator[Any]:
    """The packets of some streams, as long as none is damaged.

    Where two broadcasts were joined the end of the first looks torn off: then times jump.
    """
    torn: dict[int, Seconds] = {}
    reached: dict[int, Seconds] = {}
    for packet in container.demux(chosen):
        index = packet.stream.index
        time = None if packet.dts is None else float(packet.dts * packet.time_base)
        if time is not None:
            last, reached[index] = reached.get(index, time), time
            if index in torn and not last - LEAST_BACK <= time <= last + LEAST_AHEAD:
                del torn[index]
        if packet.is_corrupt and index not in torn:
            torn[index] = reached.get(index, 0.0)
        if index in torn and (not breaks or reached.get(index, 0.0) > torn[index] + JOINT):
            break
        yield packet
    if torn:
        raise damaged(wanted.path, "the file is cut short or overwritten")


def _decode(
    wanted: Wanted, packet: Any, kind: str, tracks: dict[int, Track]
) -> Sequence[av.AudioFrame | av.VideoFrame]:
    try:
        frames: Sequence[av.AudioFrame | av.VideoFrame] = packet.decode()
        return frames
    except _UNKNOWN:
        if len(tracks) == 1 or tracks[packet.stream.index].filled:
            raise
        del tracks[packet.stream.index]
        wanted.note(f"{stream_name(packet.stream)} is passed over: no decoder knows it")
    except av.error.InvalidDataError:
        head = bytes(packet)[:2]
        if kind not in ("mp3", "aac") or (head[:1] == b"\xff" and head[1] & 0xE0 == 0xE0):
            raise
        # No frame: a tag between two recordings, or filling.
    return ()


def _check_frame(wanted: Wanted, frame: av.AudioFrame | av.VideoFrame) -> None:
    if isinstance(frame, av.AudioFrame):
        check_rate(wanted.path, frame.sample_rate)
    elif isinstance(frame, av.VideoFrame):
        _check_pixels(wanted.path, frame.width, frame.height)


def check_rate(path: Path, rate: int) -> None:
    if rate not in SAMPLE_RATES:
        raise damaged(path, f"sound at {rate} Hz")


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(str(path), "too_large", f"pictures of {width} x {height} pixels")


def _is_pcm(stream: Any) -> bool:
    return bool(stream.codec_context.name.startswith("pcm_"))


def without(wanted: Wanted) -> DataError:
    streams = " or ".join(stream for stream in ("audio", "video") if stream in wanted.streams)
    return DataError(str(wanted.path), "no_streams", f"holds no {streams}")
