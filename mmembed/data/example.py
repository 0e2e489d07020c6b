"""One utterance: as a row of a manifest (where it is) and as an example (what it holds)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from mmembed.data.manifest.utterance import Utterance


@dataclass(frozen=True)
class Example:
    """One utterance, decoded and turned into features, unbatched.

    Attributes:
        utterance: its manifest row.
        audio: (T, 80) float16 log-mel at 100 Hz, or None.
        video: (T, 64, 64) uint8 grey face crops at 25 Hz, or None.
        text: the words as an input stream, or None.
        features: precomputed vectors of others by stream, each (T, D) float32; {} for media.
        notes: how it was made: {"face": "haar" | "full frame", "seconds": 2.4, ...}.
    """

    utterance: Utterance
    audio: NDArray[np.float16] | None = None
    video: NDArray[np.uint8] | None = None
    text: str | None = None
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    notes: Mapping[str, object] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.utterance.key

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams this example has."""
        held = {"audio": self.audio, "video": self.video, "text": self.text}
        return tuple(
            name
            for name, value in held.items()
            if (value is not None and len(value)) or len(self.features.get(name, ()))
        )

    def only(self, streams: tuple[str, ...]) -> Example:
        """The same utterance with no other than the named streams."""
        return replace(
            self,
            audio=self.audio if "audio" in streams else None,
            video=self.video if "video" in streams else None,
            text=self.text if "text" in streams else None,
            features={name: x for name, x in self.features.items() if name in streams},
        )
