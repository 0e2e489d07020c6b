"""FSDD, the Free Spoken Digit Dataset: English digits, 8 kHz, 6 speakers x 10 digits x 50 takes.

Source of names and of the official test set (takes 0 to 4): its README,
github.com/Jakobovski/free-spoken-digit-dataset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_media
from mmembed.data.manifest.utterance import Utterance

DIGITS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS: Final = dict.fromkeys(range(5), "heldout") | {5: "dev", 6: "dev"}
"""By the take; all others are for training."""
LICENCE: Final = "CC BY-SA 4.0"


def read(root: Path) -> list[Utterance]:
    """FSDD: spoken English digits."""
    name = r"(?P<stem>(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+))" + SOUND
    return [
        Utterance(
            key=f"fsdd-{match['stem']}",
            media=path.as_posix(),
            transcript=DIGITS[int(match["digit"])],
            language="en",
            streams=("audio", "text"),
            speaker=f"fsdd-{match['speaker']}",
            split=SPLITS.get(int(match["take"]), "train"),
            licence=LICENCE,
        )
        for path, match in find_media(root, name, "FSDD", "recordings/0_george_0.wav")
    ]
