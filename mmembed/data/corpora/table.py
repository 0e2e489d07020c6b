"""A table of one's own clips: CSV or TSV with a header, one line an utterance.

    media,start,end,transcript,speaker,split,category,scores.valence
    talk/one.mp4,12.5,17,"well, yes",ann,train,happy,4.5

Columns are named as the fields of a manifest and of its labels (`mmembed.data.example`), in any
order; `scores.NAME` is a score, and lists (streams, present, emotions) are
separated by spaces or as pandas writes them (`['joy', 'anger']`).
Media paths start at the folder of the table. An empty cell is a value that is not known. Without a
column `key` the key is the media path, with the start where there is one.
"""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Final

from mmembed.data.corpora.emotion_names import category
from mmembed.data.corpora.tables import Once, read_table, split_list
from mmembed.data.manifest.jsonl import from_row
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.errors import DataError
from mmembed.io.json import shown

FIELDS: Final = tuple(field.name for field in fields(Utterance) if field.name != "labels")
LABELS: Final = tuple(field.name for field in fields(Labels) if field.name != "scores")
SCORE: Final = "scores."
NUMBERS: Final = ("start", "end", "sentiment", "sentiment_limit")
LISTS: Final = ("streams", "present", "emotions")


def read(root: Path) -> list[Utterance]:
    """Any table of clips (CSV, TSV): columns named as the fields of a manifest.

    Categories of emotion are brought into the vocabulary of `emotions`.

    Raises:
        DataError: no such file, or naming the line: an unknown column, a value that is not of its
            kind, neither media nor words, or a key that stands there twice.
    """
    if not root.is_file():
        raise DataError(str(root), "missing", "no such file; name a table such as clips.csv")
    rows: list[Utterance] = []
    once = Once()
    for line, values in read_table(root):
        try:
            row = _row({name: value for name, value in values.items() if value})
        except ValueError as error:
            raise DataError(f"{root}:{line}", "table", str(error)) from None
        once(f"key {row.key}", f"{root}:{line}")
        rows.append(row)
    if not rows:
        raise DataError(str(root), "empty", "holds no line beside its header")
    return rows


def _row(values: dict[str, str]) -> Utterance:
    row: dict[str, object] = {}
    labels: dict[str, object] = {}
    scores: dict[str, float] = {}
    for name, value in values.items():
        if name.startswith(SCORE):
            scores[name.removeprefix(SCORE)] = _number(name, value)
        elif name in FIELDS:
            row[name] = _value(name, value)
        elif name in LABELS:
            labels[name] = _value(name, value)
        else:
            allowed = ", ".join((*FIELDS, *LABELS, f"{SCORE}NAME"))
            raise ValueError(f"unknown column {name!r}; allowed are {allowed}")
    if "media" not in row and "transcript" not in row:
        raise ValueError("needs media or a transcript")
    if "key" not in row:
        start = f"@{values['start']}" if "start" in values else ""
        row["key"] = portable_key(f"{values.get('media') or values['transcript']}{start}")
    return from_row({**row, "labels": {**labels, "scores": scores}})


def _value(name: str, value: str) -> object:
    if name in NUMBERS:
        return _number(name, value)
    if name == "turn":
        return _number(name, value, int)
    if name in LISTS:
        return [_number(name, x) if name == "emotions" else x for x in split_list(value, None)]
    return category(value) if name == "category" else value


def _number(name: str, value: str, kind: type[int] | type[float] = float) -> float:
    try:
        number = kind(value)
        if math.isfinite(number):
            return number
    except ValueError:
        pass
    whole = "whole " if kind is int else ""
    raise ValueError(f"{name} must be a {whole}number, found {shown(value)}")
