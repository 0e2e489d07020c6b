"""What a caller gives: a file, or audio, video and words in memory."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

import av
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mmembed.config import MAX_SECONDS, Hz, Seconds
from mmembed.data.example import LONGEST, Example, ExampleInfo
from mmembed.data.manifest.timed_words import parse_words
from mmembed.data.manifest.utterance import Utterance, portable_key
from mmembed.data.media.audio import SAMPLE_RATES, ToMono, to_16k
from mmembed.data.media.load import MediaSource, ReadySource, Source, gather
from mmembed.data.media.open import BLOCK
from mmembed.data.media.streaming import (
    LONGEST_RECORDING,
    FeatureBlock,
    MediaBlock,
    check_longest,
    features_of,
)
from mmembed.data.media.video import VideoTrack, block_length
from mmembed.errors import DataError, UsageError
from mmembed.features.audio import SAMPLE_RATE, to_int16
from mmembed.features.text import normalise_transcript
from mmembed.features.video import SMALL_GREY, VIDEO_RATE, CropForm, face_crops
from mmembed.streams import STREAMS, parse_subset

FULL_SCALE: Final = {np.dtype(np.int16): 1 << 15, np.dtype(np.int32): 1 << 31}


@dataclass(frozen=True)
class Clip:
    """One clip as a caller describes it; what is None or empty is missing.

    Attributes:
        path: an audio or video file; then there are no arrays.
        start: seconds into the file.
        end: seconds, None = to its end.
        audio: (samples,) mono: floats in [-1, 1], or int16 or int32; an array or a tensor of any
            device, as all arrays.
        sample_rate: of `audio`, Hz.
        video: (T, height, width) grey or (T, height, width, 3) RGB, uint8 from black 0 to
            white 255, at 25 Hz.
        text: the words spoken.
        words: these with their times, as a manifest has them: {"text": "bin", "start": 0.52,
            "end": 0.81} for each, in seconds from `start`.
        key: a name; by default the portable form of the path.
    """

    path: str | os.PathLike[str] | None = None
    start: Seconds = 0.0
    end: Seconds | None = None
    audio: ArrayLike | None = None
    sample_rate: Hz | None = None
    video: ArrayLike | None = None
    text: str | None = None
    words: Sequence[Mapping[str, Any]] | None = None
    key: str | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.key or (os.fspath(self.path) if self.path is not None else "clip")

    def source(
        self,
        streams: tuple[str, ...],
        face_model: Path | None,
        max_seconds: Seconds = MAX_SECONDS,
        crops: CropForm = SMALL_GREY,
    ) -> Source:
        """How to make its features.

        Args:
            streams: those wanted.
            face_model: see `mmembed.features.video.face_crops`.
            max_seconds: the most that a file may last.
            crops: form of the face crops.

        Raises:
            UsageError: it contradicts itself.
        """
        if self.path is None:
            make = partial(self._example, streams, face_model, crops)
            return ReadySource(portable_key(self.name), self.name, make)
        if self.audio is not None or self.video is not None:
            raise UsageError(f"{self.name}: give a path or arrays, not both")
        check_longest(max_seconds)
        path = os.fspath(self.path)
        row = self._row(path)
        return MediaSource(row, Path(), streams, face_model, max_seconds, path, crops)

    def _row(self, media: str | None) -> Utterance:
        row = Utterance(portable_key(self.name), media, transcript=self.text)
        if media is not None:
            end = None if self.end is None else float(self.end)
            row = replace(row, start=float(self.start), end=end)
        try:
            return row if self.words is None else replace(row, words=parse_words(self.words))
        except ValueError as error:
            raise UsageError(f"{self.name}: {error}") from None

    def _example(
        self, streams: tuple[str, ...], face_model: Path | None, crops: CropForm
    ) -> Example:
        audio = video = None
        if self.audio is not None and "audio" in streams:
            audio = _check_audio(self.audio, self.sample_rate, self.name)
        if self.video is not None and "video" in streams:
            video = _check_video(self.video, self.name)
        text = normalise_transcript(self.text or "") if "text" in streams else ""
        example = Example(self._row(None), text=text or None)
        seconds = 0.0 if audio is None else len(audio) / int(self.sample_rate or 1)
        seconds = max(seconds, 0.0 if video is None else len(video) / VIDEO_RATE)
        if seconds > LONGEST_RECORDING:
            raise UsageError(
                f"{self.name}: lasts {seconds:.0f} s, at most {LONGEST_RECORDING:.0f} s at once"
            )
        to_mono = ToMono(Path(self.name))
        if seconds > LONGEST or (video is not None and crops != SMALL_GREY):
            return gather(self._parts(audio, video, example, to_mono, face_model, crops))
        sound = luma = None
        if audio is not None and len(audio):
            sound = to_16k(self._mono(audio, to_mono), int(self.sample_rate or 1))
        if video is not None and len(video):
            luma = to_pictures(video, self.name)
        lasts = [] if sound is None else [len(sound) / SAMPLE_RATE]
        lasts += [] if luma is None else [len(luma) / VIDEO_RATE]
        return replace(
            example,
            audio=None if sound is None else to_int16(sound),
            video=None if luma is None else face_crops(luma, face_model)[0],
            info=ExampleInfo(round(max(lasts), 3), None, tuple(to_mono.notes))
            if lasts
            else ExampleInfo(),
        )

    def _mono(self, audio: NDArray[Any], to_mono: ToMono) -> NDArray[np.float32]:
        return to_mono(_floats(audio, self.name), limited=audio.dtype in FULL_SCALE)

    def _parts(
        self,
        audio: NDArray[Any] | None,
        video: NDArray[np.uint8] | None,
        example: Example,
        to_mono: ToMono,
        face_model: Path | None,
        crops: CropForm,
    ) -> Generator[FeatureBlock, None, Example]:
        """The example with its features before it, of arrays that are read block by block."""

        def blocks() -> Iterator[MediaBlock]:
            if audio is not None:
                rate = int(self.sample_rate or 1)
                for start in range(0, len(audio), BLOCK * rate):
                    samples = self._mono(audio[start : start + BLOCK * rate], to_mono)
                    yield MediaBlock("audio", samples, rate)
            if video is not None:
                step = block_length(video.shape[1:3], crops)
                for start in range(0, len(video), step):
                    pictures = to_pictures(video[start : start + step], self.name, crops)
                    yield MediaBlock("video", pictures, VIDEO_RATE)

        info = yield from features_of(blocks(), to_mono.notes, face_model, crops=crops)
        return replace(example, info=info)


Described: TypeAlias = str | os.PathLike[str] | Mapping[str, Any]
"""A path, or the fields of `Clip` by name."""


def as_clip(described: Described, key: str) -> Clip:
    """A path or a mapping as a clip.

    Args:
        described: either.
        key: of a clip that has neither a path nor a key.

    Raises:
        UsageError: it is something else, or has other fields.
    """
    if isinstance(described, str | os.PathLike):
        return Clip(described)
    if not isinstance(described, Mapping):
        raise UsageError(
            f"a clip is a path or a dict, found {type(described).__name__}; "
            "audio goes to audio=, frames to video="
        )
    known = [field.name for field in fields(Clip)]
    if unknown := [name for name in described if name not in known]:
        raise UsageError(f"a clip has no {unknown[0]!r}; it has {', '.join(known)}")
    clip = Clip(**described)
    return clip if clip.path is not None else replace(clip, key=clip.key or key)


def _check_audio(audio: ArrayLike, sample_rate: Hz | None, name: str) -> NDArray[Any]:
    samples = _as_array(audio, name, "audio")
    if samples.ndim != 1:
        raise UsageError(
            f"{name}: audio must be mono, (samples,), found {samples.shape}; "
            "take the mean of the channels"
        )
    if sample_rate is None or sample_rate != int(sample_rate) or sample_rate not in SAMPLE_RATES:
        raise UsageError(
            f"{name}: sample_rate is {sample_rate}: give that of audio, a whole number of Hz from "
            f"{SAMPLE_RATES.start} to {SAMPLE_RATES.stop - 1}"
        )
    if samples.dtype not in FULL_SCALE and not np.issubdtype(samples.dtype, np.floating):
        raise UsageError(
            f"{name}: audio must be floats in [-1, 1], int16 or int32, found {samples.dtype}"
        )
    return samples


def _floats(samples: NDArray[Any], name: str) -> NDArray[np.float32]:
    """(1, samples), where full scale is 1."""
    if samples.dtype in FULL_SCALE:
        samples = samples / np.float32(FULL_SCALE[samples.dtype])
    if not np.isfinite(samples).all():
        raise UsageError(f"{name}: audio holds values that are not finite")
    return samples.astype(np.float32)[None]


def _as_array(values: ArrayLike, name: str, what: str) -> NDArray[Any]:
    """An array, or a tensor of any device and type, whether or not gradients lead to it."""
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            # numpy has no such numbers.
            values = values.float() if values.dtype == torch.bfloat16 else values
        return np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        message = " ".join(str(error).split())[:80]
        raise UsageError(f"{name}: {what} is no array ({message})") from None


def to_pictures(video: ArrayLike, name: str, crops: CropForm = SMALL_GREY) -> NDArray[np.uint8]:
    """Frames to pictures, as a file with these frames would give.

    Args:
        video: see `Clip`.
        name: what errors call the clip.
        crops: what will be cut from them.

    Returns:
        (T, height, width), or (T, height, width, 4); see `mmembed.data.media.video.picture_of`.

    Raises:
        UsageError: they are no such frames.
    """
    frames = _check_video(video, name)
    track = VideoTrack(0.0, len(frames) / VIDEO_RATE, crops)
    for number, frame in enumerate(np.ascontiguousarray(frames)):
        picture = av.VideoFrame.from_ndarray(frame, format="gray" if frame.ndim == 2 else "rgb24")
        track.add(picture, number / VIDEO_RATE)
    found = track.finish()
    if found is None:
        return np.zeros((0, 1, 1, 4) if crops.colour else (0, 1, 1), np.uint8)
    return found


def _check_video(video: ArrayLike, name: str) -> NDArray[np.uint8]:
    frames = _as_array(video, name, "video")
    grey, colour = frames.ndim == 3, frames.ndim == 4 and frames.shape[-1] == 3
    if not (grey or colour) or frames.dtype != np.uint8 or 0 in frames.shape[1:]:
        raise UsageError(
            f"{name}: video must be uint8, (T, height, width) or (T, height, width, 3) at "
            f"{VIDEO_RATE} Hz, found {frames.shape} of {frames.dtype}"
        )
    return frames


def parse_streams(streams: str | None) -> tuple[str, ...]:
    """The streams that are wanted, all with None; `streams` such as "audio+video".

    Raises:
        UsageError: one is none.
    """
    try:
        return STREAMS if streams is None else parse_subset(streams)
    except (ValueError, AttributeError):
        raise UsageError(
            f"streams {streams!r}: one or more of {', '.join(STREAMS)} with + between them"
        ) from None


def usable(
    sources: Sequence[Source],
    loaded: Iterator[Example | DataError],
    streams: tuple[str, ...],
) -> Iterator[Example]:
    """What was loaded, without the features of others, which our encoder cannot read.

    Raises:
        DataError: a clip could not be loaded, or has none of the streams.
    """
    for source, example in zip(sources, loaded, strict=True):
        if isinstance(example, DataError):
            raise example
        held = replace(example, features={})
        if not held.streams:
            raise DataError(source.name, "no_streams", f"has no {' or '.join(streams)}")
        yield held
