"""The user's own tables: CSV or TSV with a header, one line an utterance, or JSON lines of texts.

    media,start,end,transcript,speaker,split,category,scores.valence
    talk/one.mp4,12.5,17,"well, yes",ann,train,happy,4.5

Columns are named as the fields of a manifest and of its labels (`mmembed.data.manifest.utterance`),
but for words with times, in any order; `scores.NAME` is a score, and lists (streams, present,
emotions) are separated by spaces or as pandas writes them (`['joy', 'anger']`). Media paths start
at the folder of the table. An empty cell is an unknown value. Without a column `key` the key is
the media path, with the start where there is one. The column names of texts (below) may be used for
transcript, category, present and key; a `category` is brought into the vocabulary of
`emotion_names`, a `label` stays as it is.

A table with a column `text` and none `media` holds texts:

    text       the words
    label      one category
    labels     all that hold, with commas between or as pandas writes them (['joy', 'anger'], [];
               in JSON lines a list); empty = none of them
    id         unique in the file; without it, the number of the row
    split      train, dev, test or heldout; without it, a file of this name
    language, speaker, dialogue, turn (a whole number), licence

Other columns of such a table are not read, and bytes that are not UTF-8 are read as Windows-1252.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from mmembed.data.corpora.emotion_names import category
from mmembed.data.corpora.files import SPLIT_NAMES, decode_text, find_files
from mmembed.data.corpora.tables import (
    Once,
    need_columns,
    read_cells,
    read_table,
    split_list,
)
from mmembed.data.manifest.utterance import Labels, Utterance, from_row, portable_key
from mmembed.errors import DataError
from mmembed.io.json import parse_json, shown

FIELDS: Final = tuple(x.name for x in fields(Utterance) if x.name not in ("labels", "words"))
LABELS: Final = tuple(field.name for field in fields(Labels) if field.name != "scores")
SCORE: Final = "scores."
NUMBERS: Final = ("start", "end", "sentiment", "sentiment_limit")
LISTS: Final = ("streams", "present", "emotions")

OTHER_NAMES: Final = {"text": "transcript", "label": "category", "labels": "present", "id": "key"}
OF_TEXTS: Final = (*OTHER_NAMES, "split", "language", "speaker", "dialogue", "turn", "licence")
JSON_LINES: Final = ".jsonl"


def read(root: Path) -> list[Utterance]:
    """Any table of clips (CSV, TSV) or of texts (also JSON lines, or a folder of them).

    Raises:
        DataError: no such file, or naming the line: an unknown column, a value of another kind,
            neither media nor words, or a key that occurs twice.
    """
    folder, tables = root.parent, [Path(root.name)]
    if root.is_dir():
        pattern = r"[^./][^/]*\.(?i:csv|tsv|jsonl)"
        found = find_files(root, pattern, "tables", "reviews/train.tsv")
        folder, tables = root, [path for path, _ in found]
    elif not root.exists():
        raise DataError(str(root), "missing", "no such file; name a table such as clips.csv")
    rows = [row for table in tables for row in _read_table(folder, table, texts=root.is_dir())]
    if not rows:
        raise DataError(str(root), "empty", "holds no line beside its header")
    return rows


def _read_table(folder: Path, table: Path, *, texts: bool) -> Iterator[Utterance]:
    """The rows of one table; `texts` = it must hold texts."""
    path, once = folder / table, Once()
    rows: Iterator[tuple[int, Mapping[str, Any]]]
    if path.suffix.lower() == JSON_LINES:
        texts, rows = True, _read_json_lines(path)
    else:
        _, header = next(read_cells(path, fix_encoding=True), (1, list[str]()))
        texts = texts or ("text" in header and "media" not in header)
        needed = ("text",) if texts else ()
        rows = read_table(path, needed, fix_encoding=texts, strip=not texts)
    for count, (line, cells) in enumerate(rows, start=1):
        try:
            row = _row({name: cells.get(name) for name in OF_TEXTS} if texts else cells)
            if texts:
                key = f"{table.with_suffix('').as_posix()}-{row.get('key') or count}"
                row = {"split": SPLIT_NAMES.get(table.stem), "transcript": "", **row, "key": key}
            elif "media" not in row and "transcript" not in row:
                raise ValueError("needs media or a transcript")
            elif "key" not in row:
                start = f"@{cells['start']}" if cells.get("start") else ""
                row["key"] = f"{row.get('media') or row['transcript']}{start}"
            if texts or not cells.get("key"):
                row["key"] = portable_key(str(row["key"]))
            utterance = from_row(row)
        except ValueError as error:
            raise DataError(f"{path}:{line}", "table", str(error)) from None
        once(f"key {utterance.key}", f"{path}:{line}")
        yield utterance


def _row(cells: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a manifest from the cells of a table, without a key of its own making."""
    row: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    scores: dict[str, float] = {}
    for column, cell in cells.items():
        name = OTHER_NAMES.get(column, column)
        if cell is None or (cell == "" and column != "labels"):
            continue
        if column.startswith(SCORE):
            scores[column.removeprefix(SCORE)] = _number(column, cell)
        elif name not in (*FIELDS, *LABELS):
            allowed = ", ".join((*FIELDS, *LABELS, f"{SCORE}NAME"))
            raise ValueError(f"unknown column {column!r}; allowed are {allowed}")
        elif name in row or name in labels:
            raise ValueError(f"column {column!r} gives a second {name}; remove one")
        else:
            (row if name in FIELDS else labels)[name] = _value(column, name, cell)
    return {**row, "labels": {**labels, "scores": scores}}


def _value(column: str, name: str, cell: Any) -> object:
    if name in LISTS and not isinstance(cell, str):
        if not isinstance(cell, list) or not all(isinstance(item, str) for item in cell):
            raise ValueError(f"{column} must be a list of names, found {shown(cell)}")
        return cell
    if not isinstance(cell, str | int) or isinstance(cell, bool):
        raise ValueError(f"{column} must be text, found {shown(cell)}")
    text = str(cell)
    if name in LISTS:
        items = split_list(text, "," if column == "labels" else None)
        return [_number(name, item) for item in items] if name == "emotions" else items
    if column == "label" and text[:1] in ("[", "(", "{"):
        message = f"label is one name, found {shown(text)}; several go into a column labels"
        raise ValueError(message)
    if name in NUMBERS or name == "turn":
        return _number(name, text, int if name == "turn" else float)
    if name == "split":
        return SPLIT_NAMES.get(text, text)
    return category(text) if column == "category" else text


def _number(name: str, value: str, kind: type[int] | type[float] = float) -> float:
    try:
        number = kind(value)
        if math.isfinite(number):
            return number
    except ValueError:
        pass
    whole = "whole " if kind is int else ""
    raise ValueError(f"{name} must be a {whole}number, found {shown(value)}")


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(decode_text(path, fix_encoding=True).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = parse_json(line)
        except ValueError as error:
            raise DataError(where, "table", f"not JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(where, "table", f"a line is a JSON object, found {type(row).__name__}")
        need_columns(where, list(row), ("text",))
        yield number, row
