"""An example: one utterance, decoded and turned into features; these as tensors and in batches.

Four words for one thing: an `Utterance` is a row of a manifest, an `Example` its decoded features,
an `Item` these in tensors, a `Record` what a shard stores of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.batch import Packed, SharedLayers
from mmembed.config import BATCH_FRAMES, Seconds
from mmembed.data.manifest.utterance import LATEST, Utterance
from mmembed.features.audio import MEL_BANDS, SAMPLE_RATE, log_mel, to_float
from mmembed.features.text import Subwords, normalise_transcript
from mmembed.features.video import CROP, VIDEO_RATE
from mmembed.io.json import shown
from mmembed.streams import STREAMS

LONGEST: Final[Seconds] = 300.0
"""What is longer is decoded block by block and encoded by windows. Bounds memory: 1 GB of 480 x 270
pictures."""


EMPTY: Final[Mapping[str, Tensor]] = {
    "audio": torch.zeros(0, MEL_BANDS),
    "video": torch.zeros(0, CROP, CROP, dtype=torch.uint8),
    "text": torch.zeros(0, dtype=torch.int64),
}
"""The streams of a clip that has none."""


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

    def tensors(self, subwords: Subwords | None, *, samples: bool = False) -> dict[str, Tensor]:
        """What an encoder reads of it: `Batch.inputs` of one.

        Args:
            subwords: of its text stream; None = it reads no text.
            samples: whether it reads audio as samples (N,) in [-1, 1], else as log-mel (T, 80).
        """
        inputs = dict(EMPTY)
        if samples:
            inputs["audio"] = EMPTY["audio"][:, 0]
        if self.audio is not None and len(self.audio):
            inputs["audio"] = to_float(self.audio) if samples else log_mel(self.audio)
        if self.video is not None:
            inputs["video"] = torch.from_numpy(self.video)
        if self.text is not None and subwords is not None:
            text = self.written if subwords.as_written else self.text
            inputs["text"] = torch.tensor(subwords.encode(text or ""), dtype=torch.int64)
        return inputs


@dataclass(frozen=True)
class ClipInputs:
    """The tensors of a batch of clips, and what an encoder has made of them so far.

    Attributes:
        streams: those of all three, see `Batch.inputs`.
        shared: see `Encoder.encode`.
    """

    streams: Mapping[str, Packed]
    shared: SharedLayers = field(default_factory=SharedLayers)

    @classmethod
    def of(
        cls, examples: Sequence[Example], subwords: Subwords | None, *, samples: bool = False
    ) -> ClipInputs:
        """Of examples, at least one; for the arguments see `Example.tensors`."""
        tensors = [example.tensors(subwords, samples=samples) for example in examples]
        return cls({s: Packed.concatenate([each[s] for each in tensors]) for s in STREAMS})

    def only(self, streams: Collection[str]) -> ClipInputs:
        """Of the clips that have any of these streams, these alone; what is shared is the same."""
        held = {
            s: x if s in streams else Packed(x.values[:0], torch.zeros_like(x.lengths))
            for s, x in self.streams.items()
        }
        kept = torch.stack([x.lengths > 0 for x in held.values()]).any(0)
        return replace(
            self, streams={s: Packed(x.values, x.lengths[kept]) for s, x in held.items()}
        )

    def to(self, device: torch.device) -> ClipInputs:
        """On this device; a copy to a GPU does not wait."""
        return replace(self, streams={s: x.to(device) for s, x in self.streams.items()})

    def pin_memory(self) -> ClipInputs:
        """In memory that a GPU reads by itself."""
        return replace(self, streams={s: x.pin_memory() for s, x in self.streams.items()})


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
