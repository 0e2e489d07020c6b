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
from mmembed.data.corpora.tables import Once, read_table
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.errors import DataError

EMOTIONS: Final = (
    "admiration", "amusement", "anger", "annoyance", "approval", "caring", "confusion",
    "curiosity", "desire", "disappointment", "disapproval", "disgust", "embarrassment",
    "excitement", "fear", "gratitude", "grief", "joy", "love", "nervousness", "optimism", "pride",
    "realization", "relief", "remorse", "sadness", "surprise", "neutral",
)  # fmt: skip
COLUMNS: Final = ("text", "label numbers", "id")
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
        table = root / path
        for line, row in read_table(table, header=COLUMNS, fix_encoding=True, strip=False):
            try:
                numbers = row["label numbers"].split(",")
                present = tuple(_NUMBERS[number.strip()] for number in numbers)
            except KeyError:
                message = f"{row['label numbers']!r}: label numbers are 0 to {len(EMOTIONS) - 1}"
                raise DataError(f"{table}:{line}", "label", message) from None
            once(f"comment {row['id']}", f"{table}:{line}")
            utterances.append(
                Utterance(
                    key=f"goemotions-{portable_key(row['id'])}",
                    media=None,
                    transcript=row["text"],
                    language="en",
                    split=match["split"],
                    licence=LICENCE,
                    labels=Labels(present=present),
                )
            )
    return utterances
