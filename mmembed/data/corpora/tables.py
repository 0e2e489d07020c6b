"""Reading tables of text as they circulate: tabs, commas, objects a line; old encodings mended."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmembed.errors import DataError


def mended_text(path: Path) -> str:
    """A text file, mended: UTF-8 with or without a mark, else Windows-1252."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    return mend(text).replace("\r\n", "\n").replace("\r", "\n")


def mend(text: str) -> str:
    """Characters U+0080 to U+009F, which nobody writes, turned into what they came from.

    That is Windows-1252 which somebody read as Latin-1: 0x92 is an apostrophe.
    """
    return re.sub(
        "[\x80-\x9f]", lambda c: c[0].encode("latin-1").decode("cp1252", errors="ignore"), text
    )


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, cells) of the non-empty lines of a table with tabs and no quoting."""
    for number, line in enumerate(mended_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.split("\t")


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a `.csv`, `.tsv` or `.jsonl` file; the first line names the columns.

    A `.csv` may quote its cells, a `.tsv` may not.

    Raises:
        DataError: naming the line that has another number of cells, or cannot be taken apart.
    """
    if path.suffix == ".jsonl":
        for number, line in enumerate(mended_text(path).split("\n"), start=1):
            if line.strip():
                yield number, _json_object(f"{path}:{number}", line)
        return
    table = _csv_lines(path) if path.suffix == ".csv" else read_lines(path)
    _, columns = next(table, (1, []))
    for number, cells in table:
        if len(cells) != len(columns):
            raise DataError(
                f"{path}:{number}",
                "table",
                f"has {len(cells)} cells, the first line names {len(columns)} columns",
            )
        yield number, dict(zip(columns, cells, strict=True))


def need_columns(path: Path, row: dict[str, Any], columns: tuple[str, ...]) -> None:
    """Raise DataError where a row lacks one of the columns."""
    missing = [name for name in columns if name not in row]
    if missing:
        raise DataError(
            str(path),
            "table",
            f"has no column {' or '.join(missing)}, only {', '.join(map(str, row))}",
        )


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(mended_text(path), newline=""), strict=True)
    try:
        for cells in reader:
            if cells:
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}", "table", f"not CSV: {error}") from None


def _json_object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(place, "table", f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(place, "table", f"a line is a JSON object, found {type(row).__name__}")
    return row
