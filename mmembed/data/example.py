"""An example: one utterance, decoded and turned into features, and batches of these.

Four words for one thing: an `Utterance` is a row of a manifest, an `Example` its decoded features,
an `Item` these in tensors, a `Record` what a shard stores of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.config import BATCH_FRAMES, Seconds
from mmembed.data.manifest.utterance import LATEST, Utterance
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.text import normalise_transcript
from mmembed.features.video import VIDEO_RATE
from mmembed.io.json import shown
from mmembed.streams import STREAMS

LONGEST: Final[Seconds] = 300.0
"""What is longer is decoded block by block and encoded by windows. Bounds memory: 1 GB of 480 x 270
pictures."""


@dataclass(frozen=True)
class ExampleInfo:
    """How an example was made.

    Attributes:
        seconds: how long its media are; None without media.
        face: how faces were found, "haar", "yunet" or "full frame"; None without video.
        media: what of the media was passed over or not taken as it is, each in some words.
    """

    seconds: Seconds | None = None
    face: str | None = None
    media: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As "notes" of a record holds it."""
        values = {"seconds": self.seconds, "face": self.face, "media": list(self.media) or None}
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def from_json(cls, notes: object) -> ExampleInfo:
        """The inverse of `to_json`; what it does not know is passed over.

        Raises:
            ValueError: one line saying what is not as it writes it.
        """
        if not isinstance(notes, Mapping):
            raise ValueError(f"notes must be an object, found {shown(notes)}")
        seconds, face, media = (notes.get(name) for name in ("seconds", "face", "media"))
        if seconds is not None and not (
            type(seconds) in (int, float) and -LATEST <= seconds <= LATEST
        ):
            raise ValueError(f"seconds must be a number, found {shown(seconds)}")
        if not isinstance(face, str | None):
            raise ValueError(f"face must be a string, found {shown(face)}")
        if not isinstance(media, list | None) or not all(isinstance(x, str) for x in media or ()):
            raise ValueError(f"media must be a list of strings, found {shown(media)}")
        return cls(seconds, face, tuple(media or ()))


@dataclass(frozen=True)
class Example:
    """One utterance, decoded and turned into features, unbatched.

    Attributes:
        utterance: its manifest row.
        audio: (samples,) int16 mono at 16 kHz, or None.
        video: (T, S, S) grey or (T, S, S, 3) RGB uint8 face crops at 25 Hz, or None; S is 64 and
            they are grey unless another `mmembed.features.video.CropForm` was asked for.
        text: the words as an input stream, or None.
        features: precomputed vectors of others by stream, each (T, D) float32; {} for media.
        info: how it was made.
    """

    utterance: Utterance
    audio: NDArray[np.int16] | None = None
    video: NDArray[np.uint8] | None = None
    text: str | None = None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    info: ExampleInfo = field(default_factory=ExampleInfo)

    @property
    def key(self) -> str:
        return self.utterance.key

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams this example has."""
        features = {"audio": self.audio, "video": self.video, "text": self.text}
        return tuple(
            name
            for name, value in features.items()
            if (value is not None and len(value)) or len(self.features.get(name, ()))
        )

    @property
    def written(self) -> str | None:
        """The words of the text stream as they were written, where the row has them so."""
        given = self.utterance.transcript
        return given if given and normalise_transcript(given) == self.text else self.text

    @property
    def is_long(self) -> bool:
        """Whether it is longer than `LONGEST`."""
        audio, video = (0 if x is None else len(x) for x in (self.audio, self.video))
        return max(audio / SAMPLE_RATE, video / VIDEO_RATE) > LONGEST

    @property
    def length(self) -> int:
        """Frames of 25 Hz that it lasts; with text alone, its words."""
        audio, video = (0 if x is None else len(x) for x in (self.audio, self.video))
        lasts = max(-(-audio * VIDEO_RATE // SAMPLE_RATE), video)
        return lasts or len((self.text or "").split())

    def only(self, streams: tuple[str, ...]) -> Example:
        """The same utterance with no other than the named streams."""
        features = {name: x for name, x in self.features.items() if name in streams}
        dropped: dict[str, Any] = {name: None for name in STREAMS if name not in streams}
        return replace(self, features=features, **dropped)


def batches(examples: Iterable[Example], frames: int = BATCH_FRAMES) -> Iterator[list[Example]]:
    """Examples one after another, as many as make up to `frames` frames together, at least one.

    A long one is alone, as soon as it is there.
    """
    batch, held = list[Example](), 0
    for example in examples:
        if batch and (example.is_long or held + example.length > frames):
            yield batch
            batch, held = [], 0
        batch.append(example)
        held += example.length
        if example.is_long:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
