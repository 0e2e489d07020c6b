r"""The one reader of tables, for published corpora and for the user's own.

A `.tsv`, `.tab` or `.txt` file has tabs between its cells and no quotes: a quotation mark is a
character. Any other table is a CSV (RFC 4180) with commas or semicolons, whichever its header has
more of, or tabs if it has those, then without quotes. The first line names the columns, each once.
Cells may be of any length, a byte order mark is ignored, empty lines are skipped. Refused, with
file and line: a line with another number of cells, bytes that are not UTF-8 (in some corpora they
are read as Windows-1252), and what a spreadsheet writes for a formula that it cannot compute, such
as `#NAME?` where an id begins with a dash.

Own code on the standard `csv`: table libraries neither tell the line of a fault nor keep text such
as "1.0" or "NA" as it is without many settings.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import decode_text
from mmembed.errors import DataError
from mmembed.io.json import shown

TABBED: Final = (".tsv", ".tab", ".txt")
SPREADSHEET_ERRORS: Final = frozenset(
    ("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!", "#SPILL!", "#CALC!",
     "#FIELD!", "#GETTING_DATA", "#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!")
)  # fmt: skip

_QUOTED: Final = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_ITEM: Final = re.compile(rf"\s*(?:({_QUOTED})|([^\s,'\"\[\](){{}}]+))\s*(,?)\s*")
_BRACKETS: Final = {"[": "]", "(": ")", "{": "}"}


def read_cells(
    path: Path, *, fix_encoding: bool = False, strip: bool = True
) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells) of each line of a table, the header among them.

    Args:
        path: of the file.
        fix_encoding: see `decode_text`.
        strip: whether to remove white space around cells.

    Raises:
        DataError: it is not a table in UTF-8, or a spreadsheet damaged a cell.
    """
    for number, cells in _cells(path, decode_text(path, fix_encoding=fix_encoding), strip):
        _check_cells(f"{path}:{number}", [f"cell {n}" for n in range(1, len(cells) + 1)], cells)
        yield number, cells


def read_table(
    path: Path,
    columns: Sequence[str] = (),
    *,
    header: Sequence[str] | None = None,
    fix_encoding: bool = False,
    strip: bool = True,
) -> Iterator[tuple[int, dict[str, str]]]:
    """(number of its first line, row) of each row of a table with named columns.

    Args:
        path: of the file.
        columns: names the header must have.
        header: the names, where the file begins with values.
        fix_encoding: see `decode_text`.
        strip: whether to remove white space around cells.

    Raises:
        DataError: a column is missing, or anything is refused, with its line.
    """
    lines = _cells(path, decode_text(path, fix_encoding=fix_encoding), strip)
    names = header if header is not None else next(lines, (1, []))[1]
    names = [name.strip() for name in names]
    _check_cells(f"{path}:1", names, names)
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{path}:1", "table", f"names the column {shown(name)} twice")
    need_columns(str(path), names, columns)
    for number, cells in lines:
        where = f"{path}:{number}"
        if len(cells) != len(names):
            named = "the first line names" if header is None else "a line has"
            what = f"has {len(cells)} cells, {named} {len(names)} columns"
            hint = "; quote cells that hold separators" if len(cells) > len(names) else ""
            raise DataError(where, "table", what + hint)
        _check_cells(where, names, cells)
        row = dict(zip(names, cells, strict=True))
        if names.count("") > 1:  # columns that a spreadsheet leaves behind
            nameless = [c for name, c in zip(names, cells, strict=True) if not name and c.strip()]
            if len(nameless) > 1:
                raise DataError(where, "table", f"{shown(nameless[1])} is in a column without name")
            row[""] = "".join(nameless)
        yield number, row


def need_columns(where: str, names: Sequence[str], columns: Sequence[str]) -> None:
    """Raise a DataError if one of the columns is missing."""
    if missing := [name for name in columns if name not in names]:
        there = ", ".join(map(str, names[:20])) or "none"
        message = f"has no column {' or '.join(missing)}, only {there}"
        raise DataError(where, "table", message)


def split_list(cell: str, separator: str | None) -> list[str]:
    """The items of a cell: with separators between, or a list as Python, pandas or JSON write it.

    Args:
        cell: "joy,anger", "['joy', 'anger']", "[]", '["joy"]', "[0.5 1.0]".
        separator: between items without brackets; None = white space.

    Raises:
        ValueError: it begins with a bracket and is no list of names or numbers.
    """
    text = cell.strip()
    if text == "set()":
        return []
    if text[:1] not in _BRACKETS:
        return [item.strip() for item in text.split(separator) if item.strip()]
    items, place, inner = list[str](), 0, text[1:-1].strip()
    closed = len(text) > 1 and text.endswith(_BRACKETS[text[0]])
    while place < len(inner) or not closed:
        match = _ITEM.match(inner, place) if closed else None
        if match is None:
            wanted = "no list of names or numbers, such as ['joy', 'sad']"
            raise ValueError(f"{shown(cell)} is {wanted}")
        quoted, bare, _ = match.groups()
        items.append(re.sub(r"\\(.)", r"\1", quoted[1:-1]) if quoted else bare)
        place = match.end()
    return items


class Once:
    """Refuses a second row of the same name in a table, or in all tables of a corpus."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def __call__(self, what: str, where: str) -> None:
        """Raise a DataError if `what` was there before; `where` names file and line."""
        first = self._first.setdefault(what, where)
        if first is not where:
            raise DataError(where, "duplicate", f"{what[:80]} occurs in {first} too; remove one")


def _cells(path: Path, text: str, strip: bool) -> Iterator[tuple[int, list[str]]]:
    """The lines that hold anything, each with its number, or that of its first one."""
    header = re.sub('"[^"]*"', "", text.partition("\n")[0])
    delimiter = "\t" if path.suffix.lower() in TABBED else max(",;\t", key=header.count)
    if delimiter == "\t":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, [c.strip() for c in line.split("\t")] if strip else line.split("\t")
        return
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=strip
    )
    while True:
        number = reader.line_num + 1
        before = csv.field_size_limit(sys.maxsize)  # a limit of the process
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}:{number}", "table", f"is not CSV: {error}") from None
        finally:
            csv.field_size_limit(before)
        if cells is None:
            return
        if any(cells) or len(cells) == 1:
            yield number, [cell.strip() for cell in cells] if strip else cells


def _check_cells(where: str, names: Sequence[str], cells: Sequence[str]) -> None:
    for name, cell in zip(names, cells, strict=True):
        if cell.startswith("#") and cell.strip().upper() in SPREADSHEET_ERRORS:
            message = (
                f"{name} holds {cell.strip()}: a spreadsheet took the text of this cell for a "
                "formula; use the table as published"
            )
            raise DataError(where, "table", message)
