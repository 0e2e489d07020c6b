"""What a caller gives: a file, or sound, pictures and words in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import av
import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmembed.config import Hz, Seconds
from mmembed.data.decoding import Task
from mmembed.data.example import Example, Utterance
from mmembed.data.examples import portable_key
from mmembed.data.media import LONGEST, SAMPLE_RATES
from mmembed.data.sources import Source
from mmembed.data.tracks import Pictures
from mmembed.errors import UsageError
from mmembed.features.audio import SAMPLE_RATE, log_mel, resample
from mmembed.features.text import normalise_transcript
from mmembed.features.video import VIDEO_RATE, face_crops

FULL_SCALE: Final = {np.dtype(np.int16): 1 << 15, np.dtype(np.int32): 1 << 31}


@dataclass(frozen=True)
class Clip:
    """One clip as a caller describes it; what is None or empty is missing.

    Attributes:
        path: a sound or video file; then there are no arrays.
        start: seconds into the file.
        end: seconds, None = to its end.
        audio: (samples,) mono: floats in [-1, 1], or int16 or int32.
        sample_rate: of `audio`, Hz.
        video: (T, height, width) grey or (T, height, width, 3) RGB, uint8 from black 0 to
            white 255, at 25 Hz.
        text: the words spoken.
        key: a name; by default the portable form of the path.
    """

    path: str | os.PathLike[str] | None = None
    start: Seconds = 0.0
    end: Seconds | None = None
    audio: ArrayLike | None = None
    sample_rate: Hz | None = None
    video: ArrayLike | None = None
    text: str | None = None
    key: str | None = None

    @property
    def name(self) -> str:
        """What errors call it."""
        return self.key or (os.fspath(self.path) if self.path is not None else "clip")

    def source(self, streams: tuple[str, ...], face_model: Path | None) -> Source:
        """How to make its features.

        Raises:
            UsageError: it contradicts itself.
        """
        if self.path is None:
            return Source(self._key(), self.name, lambda: self._example(streams, face_model))
        if self.audio is not None or self.video is not None:
            raise UsageError(f"{self.name}: give a path or arrays, not both")
        end = None if self.end is None else float(self.end)
        path = os.fspath(self.path)
        row = Utterance(self._key(), path, float(self.start), end, transcript=self.text)
        return Source(row.key, path, Task(row, Path(), streams, face_model))

    def _key(self) -> str:
        return portable_key(self.name)

    def _example(self, streams: tuple[str, ...], face_model: Path | None) -> Example:
        audio = video = None
        if self.audio is not None and "audio" in streams:
            audio = sound(self.audio, self.sample_rate, self.name)
        if self.video is not None and "video" in streams:
            video = pictures(self.video, self.name)
        lasts = [len(audio) / SAMPLE_RATE] if audio is not None else []
        lasts += [len(video) / VIDEO_RATE] if video is not None else []
        notes: dict[str, object] = {"seconds": round(max(lasts), 3)} if any(lasts) else {}
        if any(seconds > LONGEST for seconds in lasts):
            raise UsageError(
                f"{self.name}: lasts {max(lasts):.0f} s, at most {LONGEST:.0f} s at once"
            )
        text = normalise_transcript(self.text or "") if "text" in streams else ""
        return Example(
            Utterance(self._key(), None, transcript=self.text),
            audio=log_mel(audio) if audio is not None and len(audio) else None,
            video=face_crops(video, face_model)[0] if video is not None and len(video) else None,
            text=text or None,
            notes=notes,
        )


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
            "sound goes to audio=, pictures to video="
        )
    known = [field.name for field in fields(Clip)]
    if unknown := [name for name in described if name not in known]:
        raise UsageError(f"a clip has no {unknown[0]!r}; it has {', '.join(known)}")
    clip = Clip(**described)
    return clip if clip.path is not None else replace(clip, key=clip.key or key)


def sound(audio: ArrayLike, sample_rate: Hz | None, name: str) -> NDArray[np.float32]:
    """(samples,) at any rate to float32 at 16 kHz, as a file with this sound would give.

    Raises:
        UsageError: it is not such sound.
    """
    samples = np.asarray(audio)
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
    if samples.dtype in FULL_SCALE:
        samples = samples / np.float32(FULL_SCALE[samples.dtype])
    elif not np.issubdtype(samples.dtype, np.floating):
        raise UsageError(
            f"{name}: audio must be floats in [-1, 1], int16 or int32, found {samples.dtype}"
        )
    samples = samples.astype(np.float32)
    if not np.isfinite(samples).all():
        raise UsageError(f"{name}: audio holds values that are not finite")
    return np.clip(resample(samples, int(sample_rate)), -1.0, 1.0)


def pictures(video: ArrayLike, name: str) -> NDArray[np.uint8]:
    """Frames to (T, height, width) luma, as a file with these frames would give.

    Raises:
        UsageError: they are no such frames.
    """
    frames = np.asarray(video)
    grey, colour = frames.ndim == 3, frames.ndim == 4 and frames.shape[-1] == 3
    if not (grey or colour) or frames.dtype != np.uint8 or 0 in frames.shape[1:]:
        raise UsageError(
            f"{name}: video must be uint8, (T, height, width) or (T, height, width, 3) at "
            f"{VIDEO_RATE} Hz, found {frames.shape} of {frames.dtype}"
        )
    track = Pictures(0.0, len(frames) / VIDEO_RATE)
    for number, frame in enumerate(np.ascontiguousarray(frames)):
        picture = av.VideoFrame.from_ndarray(frame, format="gray" if grey else "rgb24")
        track.add(picture, number / VIDEO_RATE)
    found = track.finish()
    return np.zeros((0, 1, 1), np.uint8) if found is None else found
