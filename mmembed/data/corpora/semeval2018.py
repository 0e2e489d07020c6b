"""SemEval-2018 Task 1 E-c: tweets in English, Spanish and Arabic, any of 11 emotions.

Files `2018-E-c-En-train.txt` (or `E-c-En-train.txt`), `-dev`, `-test-gold` and the same for `Es`
and `Ar`: a line of column names, then ID, tweet and a 0 or 1 for each emotion, with tabs between.
English has 6,838 + 886 + 3,259 tweets. `-test.txt`, which came before the gold labels, says NONE
instead. Source: Mohammad, Bravo-Marquez, Salameh and Kiritchenko, "SemEval-2018 Task 1: affect in
tweets", SemEval 2018; saifmohammad.com. Spanish and Arabic not checked against the original.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import find_files
from mmembed.data.corpora.tables import Once, read_table
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.errors import DataError

EMOTIONS: Final = (
    "anger", "anticipation", "disgust", "fear", "joy", "love",
    "optimism", "pessimism", "sadness", "surprise", "trust",
)  # fmt: skip
LICENCE: Final = "research only"
NO_LABEL: Final = "NONE"

_SPLITS: Final = {"train": "train", "dev": "dev", "test-gold": "test", "test": "test"}
_FILE: Final = r"(?:2018-)?E-c-(?P<language>En|Es|Ar)-(?P<part>train|dev|test-gold|test)\.txt"


def read(root: Path) -> list[Utterance]:
    """SemEval-2018 E-c: tweets in three languages, any of 11 emotions.

    Raises:
        DataError: no tables, or a line that is not a tweet with 11 labels.
    """
    found = list(find_files(root, _FILE, "SemEval-2018 E-c", "English/E-c/2018-E-c-En-train.txt"))
    gold = {match["language"] for _, match in found if match["part"] == "test-gold"}
    utterances: list[Utterance] = []
    for path, match in found:
        if match["part"] == "test" and match["language"] in gold:
            continue
        once, columns = Once(), ("ID", "Tweet", *EMOTIONS)
        for line, row in read_table(root / path, columns, fix_encoding=True, strip=False):
            where, marks = f"{root / path}:{line}", [row[name] for name in EMOTIONS]
            if not set(marks) <= {"0", "1", NO_LABEL}:
                raise DataError(where, "label", f"needs 0 or 1 for {len(EMOTIONS)} emotions")
            once(f"tweet {row['ID']}", where)
            present = tuple(name for name in EMOTIONS if row[name] == "1")
            utterances.append(
                Utterance(
                    key=f"semeval2018-{portable_key(row['ID'])}",
                    media=None,
                    transcript=row["Tweet"],
                    language=match["language"].lower(),
                    split=_SPLITS[match["part"]],
                    licence=LICENCE,
                    labels=Labels(present=None if NO_LABEL in marks else present),
                )
            )
    return utterances
