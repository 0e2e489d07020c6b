"""GoEmotions: English comments of a forum, any of 27 emotions or neutral.

`train.tsv`, `dev.tsv` and `test.tsv` hold 43,410, 5,426 and 5,427 lines: text, label numbers with
commas between, comment id. Source: Demszky et al., "GoEmotions: a dataset of fine-grained
emotions", ACL 2020; github.com/google-research/google-research/tree/master/goemotions, its folder
data, with the names of the labels in emotions.txt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import find_files
from mmembed.data.corpora.tables import Once, read_lines
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.errors import DataError

EMOTIONS: Final = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
    "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
    "excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism", "pride",
    "realization", "relief", "remorse", "sadness", "surprise", "neutral",
)  # fmt: skip
LICENCE: Final = "Apache-2.0"

_NUMBERS: Final = {str(number): name for number, name in enumerate(EMOTIONS)}


def read(root: Path) -> list[Utterance]:
    """GoEmotions: English forum comments, any of 27 emotions or neutral.

    Raises:
        DataError: no tables, or a line that is not text, label numbers and id.
    """
    utterances, once = [], Once()
    for path, match in find_files(
        root, r"(?P<split>train|dev|test)\.tsv", "GoEmotions", "data/train.tsv"
    ):
        for number, cells in read_lines(root / path):
            place = f"{root / path}:{number}"
            utterances.append(_utterance(place, cells, match["split"]))
            once(f"comment {cells[2]}", place)
    return utterances


def _utterance(place: str, cells: list[str], split: str) -> Utterance:
    try:
        text, numbers, comment = cells
        present = tuple(_NUMBERS[number.strip()] for number in numbers.split(","))
    except (ValueError, KeyError):
        raise DataError(
            place,
            "label",
            f"needs text, label numbers from 0 to {len(EMOTIONS) - 1} and a comment id, "
            f"with tabs between; ends {cells[1:]}",
        ) from None
    return Utterance(
        key=f"goemotions-{portable_key(comment)}",
        media=None,
        transcript=text,
        language="en",
        split=split,
        licence=LICENCE,
        labels=Labels(present=present),
    )
