"""Long recordings in bounded memory: block by block to features that are those of the whole.

Audio is resampled with a second on either side of each block, faces are followed from block to
block. So a seam between blocks leaves no trace: samples differ from those of the whole by the
rounding to 16 bits at most, the crops not at all while the face is seen
(`mmembed.features.video.FaceCrops`).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import soundfile
from av.container import InputContainer
from numpy.typing import NDArray

from mmembed.config import Seconds
from mmembed.data.example import LONGEST, ExampleInfo
from mmembed.data.media.audio import AudioTrack, ToMono, holds_floats, read_sound_file, to_16k
from mmembed.data.media.decode import Track, open_part, open_tracks, read_frames
from mmembed.data.media.open import BLOCK, MediaPart
from mmembed.data.media.video import VideoTrack
from mmembed.errors import UsageError
from mmembed.features.audio import SAMPLE_RATE, to_int16
from mmembed.features.video import DETECT_EVERY, SMALL_GREY, VIDEO_RATE, CropForm, FaceCrops

ADVICE: Final = "give start and end, or allow more with max_seconds"
LONGEST_RECORDING: Final[Seconds] = 86_400.0  # a day: its features take 12 GB of disk
assert BLOCK * VIDEO_RATE % DETECT_EVERY == 0


class MediaBlock(NamedTuple):
    """The next part of one stream of a recording.

    Attributes:
        stream: "audio" or "video".
        values: (samples,) float32 mono, or (T, height, width) or (T, height, width, 4) uint8
            pictures, see `mmembed.data.media.video.picture_of`.
        rate: of the samples, as in the file, or of the video, 25; Hz.
    """

    stream: str
    values: NDArray[Any]
    rate: int


class FeatureBlock(NamedTuple):
    """The next steps of one stream.

    Attributes:
        stream: "audio" or "video".
        values: features as an `Example` holds them.
        size: bytes of the medium that they are a part of, 0 where it is in memory.
    """

    stream: str
    values: NDArray[Any]
    size: int = 0


def check_longest(seconds: Seconds) -> None:
    """Refuse a limit for recordings that is none, with a UsageError."""
    if not LONGEST <= seconds <= LONGEST_RECORDING:
        limits = f"from {LONGEST:.0f} to {LONGEST_RECORDING:.0f}"
        raise UsageError(f"max_seconds {seconds:g}: give a number {limits}")


def stream_clip(part: MediaPart) -> Iterator[MediaBlock]:
    """Decode what `mmembed.data.media.decode.load_clip` refuses as too long, block by block.

    One pass over the file, whatever its kind; notes of the clip are in `part`.

    Yields:
        The blocks of both streams as they are complete; those of each are in order. All but the
        last last `BLOCK` seconds, those of large pictures less: a multiple of 12 pictures.

    Raises:
        DataError: as `load_clip`.
    """
    seconds = 0.0
    lasted: dict[str, int] = {}
    with open_part(part) as file:
        blocks = _stream_sound if isinstance(file, soundfile.SoundFile) else _stream_container
        for block in blocks(part, file):
            lasted[block.stream] = lasted.get(block.stream, 0) + len(block.values)
            seconds = max(seconds, lasted[block.stream] / block.rate)
            yield block
    part.note_end(seconds)


def _stream_sound(part: MediaPart, file: soundfile.SoundFile) -> Iterator[MediaBlock]:
    to_mono, limited = ToMono(part.path), not holds_floats(file)
    for samples in read_sound_file(part, file):
        yield MediaBlock("audio", to_mono(samples, limited=limited), int(file.samplerate))
    part.note(*to_mono.notes)


def _stream_container(part: MediaPart, container: InputContainer) -> Iterator[MediaBlock]:
    tracks = open_tracks(part, container)
    to_mono = ToMono(part.path)

    def ready(track: Track, least: int = 1) -> Iterator[MediaBlock]:
        """What the track holds, in blocks; the last of fewer than `least` stays."""
        while track.held >= least:
            if isinstance(track, AudioTrack):
                mono = to_mono(track.take(BLOCK * track.rate), limited=track.limited)
                yield MediaBlock("audio", mono, track.rate)
            else:
                yield MediaBlock("video", track.take(track.block), track.rate)
            part.check_length(track.taken / track.rate)

    for track, frame, time in read_frames(part, container, tracks):
        if isinstance(track, VideoTrack) and time is not None:
            # A picture may stay for hours.
            while not track.show_until(time, track.block):
                yield from ready(track, track.block)
        track.add(frame, time)
        yield from ready(
            track, track.block if isinstance(track, VideoTrack) else BLOCK * track.rate
        )
    for track in tracks.values():
        if isinstance(track, VideoTrack):
            while not track.show_until(track.shown_until, track.block):
                yield from ready(track, track.block)
            track.close()
        yield from ready(track)
        part.note(*track.notes)
    part.note(*to_mono.notes)


class _AudioBlocks:
    """Audio that comes block by block, at 16 kHz."""

    def __init__(self) -> None:
        self._before = self._waiting = np.zeros(0, np.float32)
        self._rate = SAMPLE_RATE
        self.samples = 0

    def add(self, block: MediaBlock) -> Iterator[NDArray[np.int16]]:
        """Take whole seconds, unless they are the last; those taken before at 16 kHz."""
        self._rate = block.rate
        self.samples += len(block.values)
        yield from self.finish(block.values[: block.rate])
        self._before, self._waiting = self._waiting[-block.rate :], block.values

    def finish(self, after: NDArray[np.float32] | None = None) -> Iterator[NDArray[np.int16]]:
        """What was taken last, at 16 kHz; `after`: the second that follows it, if any."""
        if not len(self._waiting):
            return
        own = -(-len(self._waiting) * SAMPLE_RATE // self._rate)
        parts = [self._before, self._waiting, *([] if after is None else [after])]
        audio = to_16k(np.concatenate(parts), self._rate)
        assert audio is not None
        first = SAMPLE_RATE * len(self._before) // self._rate
        yield to_int16(audio[first : first + own])

    @property
    def seconds(self) -> float:
        return -(-self.samples * SAMPLE_RATE // self._rate) / SAMPLE_RATE


def features_of(
    blocks: Iterable[MediaBlock],
    notes: Sequence[str],
    face_model: Path | None = None,
    size: int = 0,
    crops: CropForm = SMALL_GREY,
) -> Generator[FeatureBlock, None, ExampleInfo]:
    """Features of a recording, block by block.

    Args:
        blocks: see `stream_clip`.
        notes: of the media, complete when the blocks have ended.
        face_model: see `mmembed.features.video.face_crops`.
        size: see `FeatureBlock`.
        crops: their form.

    Yields:
        Each stream's parts in order, one block behind.

    Returns:
        How the example was made.

    Raises:
        DataError: whatever `blocks` raises.
    """
    audio, faces, frames = _AudioBlocks(), FaceCrops(face_model, crops), 0
    for block in blocks:
        if block.stream == "audio":
            for samples in audio.add(block):
                yield FeatureBlock("audio", samples, size)
        else:
            frames += len(block.values)
            if (cut := faces.add(block.values)) is not None:
                yield FeatureBlock("video", cut, size)
    for samples in audio.finish():
        yield FeatureBlock("audio", samples, size)
    if (cut := faces.finish()) is not None:
        yield FeatureBlock("video", cut, size)
    seconds = max(audio.seconds, frames / VIDEO_RATE)
    return ExampleInfo(round(seconds, 3), faces.how if frames else None, tuple(notes))
