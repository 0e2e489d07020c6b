"""Media files to audio at 16 kHz and video at 25 Hz, on one time axis.

Both streams are laid out from time 0 of the container by their own timestamps: late starts,
variable frame rates and gaps come out right. What headers say of lengths is a hint: a file is read
to its end. Damage raises; a stream that is not there is None; what is passed over is noted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Final, TypeAlias

import av
import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.example import LONGEST
from mmembed.data.media.audio import (
    AudioTrack,
    check_rate,
    finish_audio,
    holds_floats,
    join,
    read_sound_file,
)
from mmembed.data.media.open import (
    MediaFile,
    MediaPart,
    choose_streams,
    damaged,
    open_media,
    stated_length,
    stream_name,
)
from mmembed.data.media.video import VideoTrack, shown_for
from mmembed.errors import DataError
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.video import SMALL_GREY, VIDEO_RATE, CropForm
from mmembed.streams import STREAMS

BROADCAST_KINDS: Final = ("mpegts", "mpeg")  # whose times may jump
MOST_PIXELS: Final = 8192 * 8192  # of a declared picture; more is refused before decoding
WARM_UP: Final[Seconds] = 1.0  # decoded and dropped before `start`: codecs look back
SEEKABLE_KINDS: Final = ("mov", "matroska")  # with an index; elsewhere a seek may land too late
JOINT: Final[Seconds] = 1.0  # within which times go back, behind a packet that is cut off
LEAST_BACK: Final[Seconds] = 0.1  # times that go back by more begin anew: files were joined
LEAST_AHEAD: Final[Seconds] = 300.0  # likewise ahead, where that can be a new beginning
UNTIMED_KINDS: Final = ("aac", "ac3", "dts", "eac3", "flac", "loas", "mlp", "mp3", "truehd")
_UNKNOWN: Final = (av.error.DecoderNotFoundError, av.error.PatchWelcomeError)

Track: TypeAlias = AudioTrack | VideoTrack


@dataclass(frozen=True)
class DecodedMedia:
    """A decoded clip.

    Attributes:
        audio: (samples,) float32 mono at 16 kHz in [-1, 1], or None.
        video: (T, height, width) or (T, height, width, 4) uint8 pictures at 25 Hz, see
            `mmembed.data.media.video.picture_of`, or None.
        seconds: of the longer of both.
        notes: what was passed over and what was not taken as it is, each in some words.
    """

    audio: NDArray[np.float32] | None
    video: NDArray[np.uint8] | None
    seconds: Seconds
    notes: tuple[str, ...] = ()


def load_clip(
    path: Path,
    *,
    start: Seconds = 0.0,
    end: Seconds | None = None,
    streams: Sequence[str] = STREAMS,
    data: bytes | None = None,
    crops: CropForm = SMALL_GREY,
) -> DecodedMedia:
    """Decode audio and video of a file, or of a part of it.

    Args:
        path: an audio or video file.
        start: of the part, from time 0 of the container.
        end: of the part; None = the end of the file. One behind it means the end of the file, too,
            and is noted.
        streams: those wanted; others are not decoded.
        data: the bytes of the file where it is part of another; `path` is then only its name.
        crops: what will be cut from the pictures.

    Raises:
        DataError: with reason "missing", "unreadable", "empty", "not_media", "no_streams",
            "too_short", "too_long", "too_large", "scale" or "damaged".
    """
    part = MediaPart(path, start, end, streams, LONGEST, data, crops=crops)
    audio = video = None
    with open_part(part) as file:
        if isinstance(file, soundfile.SoundFile):
            samples = join(list(read_sound_file(part, file)))
            audio = finish_audio(part, samples, file.samplerate, not holds_floats(file))
        else:
            tracks = open_tracks(part, file)
            for track, frame, time in read_frames(part, file, tracks):
                track.add(frame, time)
            for track in tracks.values():
                part.note(*track.notes)
                if isinstance(track, AudioTrack):
                    samples = track.take(track.held)
                    audio = finish_audio(part, samples, track.rate, track.limited)
                else:
                    video = track.finish()
    seconds = max(
        0.0 if audio is None else len(audio) / SAMPLE_RATE,
        0.0 if video is None else len(video) / VIDEO_RATE,
    )
    part.check_length(seconds)
    part.note_end(seconds)
    return DecodedMedia(audio, video, seconds, tuple(part.notes))


@contextmanager
def open_part(part: MediaPart) -> Iterator[MediaFile]:
    """The file in the decoder for its kind, unless it is too long."""
    with open_media(part, part.end) as file:
        stated = None if part.end is not None else stated_length(file)
        if stated is None or stated - part.start <= part.longest:
            yield file
            return
        if isinstance(file, soundfile.SoundFile) or _goes_beyond(part, file):
            part.check_length(stated - part.start)
    with open_media(part) as file:  # its header claims too much
        yield file


def _goes_beyond(part: MediaPart, container: InputContainer) -> bool:
    """Whether there is anything at the end of what is allowed."""
    axis, chosen = _time_axis(container), [*container.streams.audio, *container.streams.video]
    return any(
        packet.dts is not None
        and axis.position(packet.stream.index, float(packet.dts * packet.time_base), 0.0)
        > part.stop - 1
        for packet in container.demux(chosen)
    )


def open_tracks(part: MediaPart, container: InputContainer) -> dict[int, Track]:
    """A track for each wanted kind, by the index of the stream that is taken for it."""
    tracks: dict[int, Track] = {}
    for stream in choose_streams(part, container):
        if stream.type == "audio":
            limited = not stream.codec_context.name.startswith("pcm_f")
            tracks[stream.index] = AudioTrack(part.start, part.stop, limited=limited)
        else:
            _check_pixels(part.path, stream.width, stream.height)
            stream.thread_type = "NONE"  # one clip, one core
            tracks[stream.index] = VideoTrack(part.start, part.stop, part.crops)
    return tracks


def _time_axis(container: InputContainer) -> TimeAxis:
    """The axis of a container that is read from its beginning."""
    origin = (container.start_time or 0) / av.time_base
    return TimeAxis(origin, breaks=container.format.name in BROADCAST_KINDS)


def read_frames(
    part: MediaPart, container: InputContainer, tracks: dict[int, Track]
) -> Iterator[tuple[Track, Any, Seconds | None]]:
    """Decoded frames with the track of each and its time, until all tracks are done.

    A track whose codec turns out to be unknown is removed from `tracks`, if it is not the only one.
    """
    kind = container.format.name.split(",")[0]
    origin = (container.start_time or 0) / av.time_base
    breaks = kind in BROADCAST_KINDS
    axis = _time_axis(container)
    chosen = [container.streams[index] for index in tracks]
    is_pcm = all(stream.codec_context.name.startswith("pcm_") for stream in chosen)
    if part.start > WARM_UP and (kind in SEEKABLE_KINDS or is_pcm):
        container.seek(round((origin + part.start - WARM_UP) * av.time_base))
    for packet in _whole_packets(part, container, chosen, breaks):
        # Not its stream_index: that is 0 in the empty last packets, which empty the decoders.
        index = packet.stream.index
        track = tracks.get(index)
        if track is None or track.done:
            continue
        if not breaks and part.end is None and packet.pts is not None:
            # Before the gap to it is filled.
            part.check_length(float(packet.pts * packet.time_base) - origin - part.start - 1.0)
        for frame in _decode(part, packet, kind, tracks):
            if isinstance(frame, av.AudioFrame):
                check_rate(part.path, frame.sample_rate)
            elif isinstance(frame, av.VideoFrame):
                _check_pixels(part.path, frame.width, frame.height)
            time = frame.time
            if kind in UNTIMED_KINDS and isinstance(frame, av.AudioFrame):
                time = axis.follow(index, _lasts(frame))
            elif time is not None:
                time = axis.position(index, time, _lasts(frame))
            if isinstance(frame, av.AudioFrame) == isinstance(track, AudioTrack):
                yield track, frame, time
        if all(track.done for track in tracks.values()):
            break
    if axis.recordings > 1:
        part.note(f"{axis.recordings} recordings joined in one file")


def _whole_packets(
    part: MediaPart, container: InputContainer, chosen: list[Any], breaks: bool
) -> Iterator[Any]:
    """The packets of some streams, as long as none is damaged.

    Where two broadcasts were joined the end of the first looks cut off: then times jump.
    """
    cut: dict[int, Seconds] = {}
    reached: dict[int, Seconds] = {}
    for packet in container.demux(chosen):
        index = packet.stream.index
        time = None if packet.dts is None else float(packet.dts * packet.time_base)
        if time is not None:
            last, reached[index] = reached.get(index, time), time
            if index in cut and not last - LEAST_BACK <= time <= last + LEAST_AHEAD:
                del cut[index]
        if packet.is_corrupt and index not in cut:
            cut[index] = reached.get(index, 0.0)
        if index in cut and (not breaks or reached.get(index, 0.0) > cut[index] + JOINT):
            break
        yield packet
    if cut:
        raise damaged(part.path, "the file is cut short or overwritten")


def _decode(
    part: MediaPart, packet: Any, kind: str, tracks: dict[int, Track]
) -> Sequence[av.AudioFrame | av.VideoFrame]:
    try:
        frames: Sequence[av.AudioFrame | av.VideoFrame] = packet.decode()
        return frames
    except _UNKNOWN:
        if len(tracks) == 1 or tracks[packet.stream.index].filled:
            raise
        del tracks[packet.stream.index]
        part.note(f"{stream_name(packet.stream)} is passed over: no decoder knows it")
    except av.error.InvalidDataError:
        head = bytes(packet)[:2]
        if kind not in ("mp3", "aac") or (head[:1] == b"\xff" and head[1] & 0xE0 == 0xE0):
            raise
        # No frame: a tag between two recordings, or filling.
    return ()


def _check_pixels(path: Path, width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise DataError(str(path), "too_large", f"pictures of {width} x {height} pixels")


class TimeAxis:
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

    def position(self, track: int, time: Seconds, lasts: Seconds) -> Seconds:
        """When a frame begins.

        Args:
            track: whose frame it is; the frames of a track come in order.
            time: in the container.
            lasts: its duration.
        """
        part, last = self._part.get(track, 0), self._last.get(track)
        position = time + self._shifts[part]
        ahead = self._end + LEAST_AHEAD if self._breaks else inf
        while last is not None and not last - LEAST_BACK <= position <= ahead:
            part += 1
            if part == len(self._shifts):
                self._shifts.append(self._end - time)
            position = time + self._shifts[part]
            if part + 1 == len(self._shifts):
                break
        self._part[track], self._last[track] = part, position
        self._end = max(self._end, position + lasts)
        return position

    def follow(self, track: int, lasts: Seconds) -> Seconds:
        """When a frame begins that comes right behind the one before."""
        position = self._last.get(track, 0.0)
        self._last[track] = position + lasts
        return position


def _lasts(frame: av.AudioFrame | av.VideoFrame) -> Seconds:
    """The duration of a frame."""
    if isinstance(frame, av.AudioFrame):
        return frame.samples / frame.sample_rate
    return shown_for(frame)
