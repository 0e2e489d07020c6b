"""Manifests: one JSON object a line, one line an utterance; or the same as a Parquet table.

    {"key": "grid-s1-bbaf2n", "media": "video/s1/bbaf2n.mpg", "transcript": "bin blue at f two now"}

The fields are those of `Utterance`; `labels` is an object of its own. What a row does not name has
its default. `media` is absolute or relative to the folder of the manifest. A name that ends in
`.parquet` means a table, see `mmembed.data.manifest.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from mmembed.data.manifest.utterance import Utterance, from_row, to_row
from mmembed.errors import DataError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import parse_json

TABLE: Final = ".parquet"
SUFFIXES: Final = (".jsonl", TABLE)

_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16

ManifestRow: TypeAlias = Utterance | DataError
"""A row, or what is wrong with it: an error whose item is its file and line."""


def read_manifest(path: Path) -> list[Utterance]:
    """The rows of a manifest, in its order.

    Raises:
        DataError: naming the file, and the first line or row that cannot be used.
    """
    rows = list(each_row(path))
    for row in rows:
        if isinstance(row, DataError):
            raise row
    return [row for row in rows if isinstance(row, Utterance)]


def each_row(path: Path) -> Iterator[ManifestRow]:
    """The rows of a manifest, in its order; one that cannot be used is the error that says why.

    Of those that came, only the keys are in memory.

    Raises:
        DataError: the file cannot be read, or two rows share a key; after the last row, that not
            one of them can be used.
    """
    keys: set[str] = set()
    errors, first = 0, DataError(str(path), "empty", "the manifest holds no utterance")
    for where, row in iterate_rows(path):
        if isinstance(row, Utterance):
            if row.key in keys:
                raise _duplicate(path, where, row.key)
            keys.add(row.key)
        else:
            first = first if errors else row
            errors += 1
        yield row
    if not keys and errors > 1:
        message = f"{first.message}; nor can any other of {errors} rows be used"
        raise DataError(first.item, first.reason, message)
    if not keys:
        raise first


def _duplicate(path: Path, where: str, key: str) -> DataError:
    rows = iterate_rows(path)
    first = next(x for x, row in rows if isinstance(row, Utterance) and row.key == key)
    stands = f"{first.removeprefix(str(path)).strip(': ')} too"
    stands = stands if path.suffix.lower() == TABLE else f"line {stands}"
    message = f"key {key} stands on {stands}; every utterance needs its own"
    return DataError(where, "duplicate", message)


def count_rows(path: Path) -> int:
    """How many rows a manifest has, those that cannot be used among them.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() == TABLE:
        from mmembed.data.manifest.parquet import count_table_rows  # pyarrow

        return count_table_rows(path)
    try:
        with path.open("rb") as file:
            return sum(bool(line.strip()) for line in file)
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such manifest") from None


def iterate_rows(path: Path) -> Iterator[tuple[str, ManifestRow]]:
    """Where each row of a manifest stands ("m.jsonl:3", "m.parquet: row 3"), and the row.

    Empty lines hold nothing.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() == TABLE:
        from mmembed.data.manifest.parquet import read_rows  # pyarrow

        for number, row in enumerate(read_rows(path), start=1):
            yield f"{path}: row {number}", row
        return
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and line.startswith(_MARKS):
                    message = "a manifest is UTF-8 text, this is UTF-16; save it as UTF-8"
                    raise DataError(str(path), "manifest", message)
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    try:
                        row = from_row(parse_json(text))
                    except ValueError as error:
                        row = DataError(f"{path}:{number}", "manifest", str(error))
                    yield f"{path}:{number}", row
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such manifest") from None


def row_name(row: ManifestRow) -> str:
    """The key, or file and line ("m.jsonl:3") of a row that cannot be used."""
    return Path(row.item).name if isinstance(row, DataError) else row.key


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest whole or not at all; the same utterances give the same bytes.

    Raises:
        DataError: two utterances share a key.
    """
    checked = _without_duplicates(path, utterances)
    with atomic_file(path) as file:
        if path.suffix.lower() == TABLE:
            from mmembed.data.manifest.parquet import write_rows  # pyarrow

            write_rows(file, list(checked))
            return
        for row in map(to_row, checked):
            line = json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"
            try:
                file.write(line.encode())
            except UnicodeEncodeError:  # the name of a file that is no UTF-8
                file.write(json.dumps(row, allow_nan=False).encode() + b"\n")


def _without_duplicates(path: Path, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
    seen: set[str] = set()
    for number, utterance in enumerate(utterances, start=1):
        if utterance.key in seen:
            raise DataError(f"{path}:{number}", "duplicate", f"a second {utterance.key}")
        seen.add(utterance.key)
        yield utterance
