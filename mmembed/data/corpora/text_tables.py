"""Any text with labels, as a table: `.csv`, `.tsv` or `.jsonl`.

Columns, of which only `text` is needed:

    text       the words
    label      one category
    labels     all that hold, with commas between or as pandas writes them (['joy', 'anger'], [];
               in JSON lines a list); empty = none of them
    id         unique in the file; the row number without
    split      train, dev, test or heldout; without, a file of this name
    language   ISO 639-1
    speaker, dialogue, turn (a whole number), licence

Other columns are not read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from mmembed.data.corpora.files import find_files
from mmembed.data.corpora.tables import Once, read_rows, split_list
from mmembed.data.manifest.utterance import SPLITS, Labels, Utterance, portable_key
from mmembed.errors import DataError
from mmembed.io.json import shown

OTHER_NAMES: Final = {"valid": "dev", "validation": "dev", "val": "dev"}


def read(root: Path) -> list[Utterance]:
    """Text with labels in any .csv, .tsv or .jsonl: one table, or a folder of them.

    Raises:
        DataError: no table, none with a column `text`, or a row that means nothing.
    """
    if root.is_file():
        folder, tables = root.parent, [Path(root.name)]
    else:
        found = find_files(
            root, r"[^./][^/]*\.(?i:csv|tsv|jsonl)", "text tables", "reviews/train.tsv"
        )
        folder, tables = root, [path for path, _ in found]
    return [utterance for table in tables for utterance in _read_table(folder, table)]


def _read_table(folder: Path, table: Path) -> list[Utterance]:
    path = folder / table
    utterances, once = [], Once()
    for count, (number, row) in enumerate(read_rows(path, ("text",)), start=1):
        try:
            if (identity := _cell(row, "id")) is not None:
                once(f"id {identity}", f"{path}:{number}")
            name = f"{table.with_suffix('').as_posix()}-{identity or count}"
            utterances.append(_utterance(portable_key(name), row, table.stem))
        except ValueError as error:
            raise DataError(f"{path}:{number}", "table", str(error)) from None
    return utterances


def _utterance(key: str, row: dict[str, Any], stem: str) -> Utterance:
    named, turn = _cell(row, "split"), _cell(row, "turn")
    split = OTHER_NAMES.get(named or stem, named or stem)
    return Utterance(
        key=key,
        media=None,
        transcript=_cell(row, "text") or "",
        language=_cell(row, "language"),
        speaker=_cell(row, "speaker"),
        dialogue=_cell(row, "dialogue"),
        turn=None if turn is None else _whole("turn", turn),
        split=split if named or split in SPLITS else None,
        licence=_cell(row, "licence"),
        labels=Labels(category=_category(row), present=_present(row.get("labels"))),
    )


def _cell(row: dict[str, Any], column: str) -> str | None:
    """Text, or a whole number as text; None where the column is empty or missing."""
    value = row.get(column)
    if value is None or value == "":
        return None
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise ValueError(f"{column} must be text, found {shown(value)}")
    return str(value)


def _whole(column: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"{column} must be a whole number, found {shown(value)}") from None


def _category(row: dict[str, Any]) -> str | None:
    category = _cell(row, "label")
    if category is not None and category[:1] in ("[", "(", "{"):
        message = f"label is one name, found {shown(category)}; several go into a column labels"
        raise ValueError(message)
    return category


def _present(labels: object) -> tuple[str, ...] | None:
    if labels is None:
        return None
    if isinstance(labels, str):
        return tuple(split_list(labels, ","))
    if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
        raise ValueError(f"labels must be a list of names, found {shown(labels)}")
    return tuple(labels)
