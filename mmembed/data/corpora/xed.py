"""XED: movie subtitles in many languages, any of Plutchik's 8 emotions.

`en-annotated.tsv` and `fi-annotated.tsv` were labelled by people, `XX-projections.tsv` took their
labels over from aligned subtitles; a line is text and label numbers, "4, 7". `neu_en.txt` holds
subtitles without emotion, a line is 9 and the text. Source: Ohman, Pamies, Kajava and Tiedemann,
"XED: a multilingual dataset for sentiment analysis and emotion detection", COLING 2020;
github.com/Helsinki-NLP/XED.

There is no official split: a hash of the normalised words makes a tenth test, a tenth dev, so that
the same words are in the same split wherever they occur in a language. The ids of subtitles, which
show that two lines of two languages are translations of each other, are not published: a
translation of a training line can be a test line.

Some projections hold lines that are no subtitles but leftovers of the alignment, where a quotation
mark was never closed ("en/1990/...xml.gz de/1990/...xml.gz 1502 ..."). Lines without label numbers
are left out and counted.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import find_files
from mmembed.data.corpora.tables import read_cells
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.features.text import normalise_transcript

EMOTIONS: Final = {
    "1": "anger", "2": "anticipation", "3": "disgust", "4": "fear", "5": "joy", "6": "sadness",
    "7": "surprise", "8": "trust",
}  # fmt: skip
NEUTRAL: Final = "9"
LICENCE: Final = "CC BY 4.0"

LANGUAGES: Final = {"br": "pt", "cn": "zh", "tw": "zh"}
"""Names of XED that ISO 639-1 does not know; the others are the same."""

_FILE: Final = (
    r"(?P<stem>(?P<language>[a-z]{2})-(?:annotated|projections\d?)|neu_(?P<neutral>en|fi))"
)
_LABELS: Final = re.compile(r"[1-8](?:, ?[1-8])*")


def read(root: Path) -> list[Utterance]:
    """XED: movie subtitles in many languages, any of 8 emotions.

    Raises:
        DataError: no tables.
    """
    utterances = []
    for path, match in find_files(
        root, _FILE + r"\.(?:tsv|txt)", "XED", "AnnotatedData/en-annotated.tsv"
    ):
        language, others = match["language"] or match["neutral"], []
        for number, cells in read_cells(root / path, fix_encoding=True, strip=False):
            labelled = _labelled(cells, neutral=match["neutral"] is not None)
            if labelled is None:
                others.append(str(number))
                continue
            text, present = labelled
            utterances.append(
                Utterance(
                    key=f"xed-{match['stem']}-{number}",
                    media=None,
                    transcript=text,
                    language=LANGUAGES.get(language, language),
                    split=split_of(text),
                    licence=LICENCE,
                    labels=Labels(present=present),
                )
            )
        log_skipped(root / path, others, "lines have no text or no label numbers and are left out")
    return utterances


def split_of(text: str) -> str:
    """The split of a text, the same for texts of the same words."""
    words = normalise_transcript(text)
    return {0: "test", 1: "dev"}.get(zlib.crc32(words.encode()) % 10, "train")


def _labelled(cells: list[str], neutral: bool) -> tuple[str, tuple[str, ...]] | None:
    """Text and labels of a line, or None where it is no line of XED."""
    if neutral:
        return (cells[1], ()) if cells[0] == NEUTRAL and cells[1].strip() else None
    if len(cells) != 2 or not cells[0].strip() or not _LABELS.fullmatch(cells[1].strip()):
        return None
    return cells[0], tuple(EMOTIONS[number] for number in sorted(set(cells[1]) & set(EMOTIONS)))
