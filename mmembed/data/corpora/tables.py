r"""Reading tables, of all corpora and of one's own: what they look like, and what is refused.

A `.tsv`, `.tab` or `.txt` file has tabs between its cells and no quotes: a quotation mark is a
character. Any other table is a CSV (RFC 4180) with commas or semicolons, whichever its header has
more of, or tabs if it has those, then without quotes. The first line names the columns, each once.
Cells may be of any length, a mark at the beginning (BOM) is nothing, lines without any value are
passed over. Refused, with file and line: a line of another number of cells, what is no UTF-8 (in
some corpora it is read as Windows-1252), and what a spreadsheet writes for a formula that it could
not compute, such as `#NAME?` where an id began with a dash.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from mmembed.errors import DataError
from mmembed.io.json import parse_json, shown

TABBED: Final = (".tsv", ".tab", ".txt")
SPREADSHEET_ERRORS: Final = frozenset(
    ("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NULL!", "#NUM!", "#SPILL!", "#CALC!",
     "#FIELD!", "#GETTING_DATA", "#BLOCKED!", "#CONNECT!", "#UNKNOWN!", "#BUSY!")
)  # fmt: skip

_OTHER_KINDS: Final = {
    b"PK\x03\x04": "an Excel file or an archive; save the table as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the table as CSV in UTF-8",
    b"PAR1": "a Parquet table; `mmembed prepare manifest` reads those",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}
_QUOTED: Final = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_ITEM: Final = re.compile(rf"\s*(?:({_QUOTED})|([^\s,'\"\[\](){{}}]+))\s*(,?)\s*")
_BRACKETS: Final = {"[": "]", "(": ")", "{": "}"}


def mended_text(path: Path) -> str:
    """A text file, mended: UTF-8 with or without a mark, else Windows-1252."""
    return _text(path, fix_encoding=True)


def mend(text: str) -> str:
    """Characters U+0080 to U+009F, which nobody writes, turned into what they came from.

    That is Windows-1252 which somebody read as Latin-1: 0x92 is an apostrophe.
    """
    return re.sub(
        "[\x80-\x9f]", lambda c: c[0].encode("latin-1").decode("cp1252", errors="ignore"), text
    )


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number from 1, cells) of a table with tabs and no header, its text mended."""
    for number, cells in _cells(path, mended_text(path), "\t"):
        _check_cells(f"{path}:{number}", [f"cell {n}" for n in range(1, len(cells) + 1)], cells)
        yield number, cells


def read_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its first line, cells without white space around) of each line of a table, its
    header among them; not checked any further.

    Raises:
        DataError: it is no table in UTF-8.
    """
    text = _text(path)
    for number, cells in _cells(path, text, _delimiter(path, text), spaces=True):
        yield number, [cell.strip() for cell in cells]


def read_table(
    path: Path, columns: Sequence[str] = (), *, header: Sequence[str] | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the number of its first line, without white space around.

    Args:
        path: of the file.
        columns: names the header must have.
        header: the names, where the file begins with values.

    Raises:
        DataError: a column is missing, or whatever is refused, with its line.
    """
    yield from _named(path, read_cells(path), columns, header)


def read_rows(
    path: Path, columns: Sequence[str] = (), *, fix_encoding: bool = True
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a table or of a `.jsonl` file, an object a line; cells as they are.

    Args:
        path: of the file.
        columns: names that a row must have.
        fix_encoding: see `mended_text`.

    Raises:
        DataError: naming the line that cannot be taken apart or lacks a column.
    """
    text = _text(path, fix_encoding=fix_encoding)
    if path.suffix.lower() != ".jsonl":
        yield from _named(path, _cells(path, text, _delimiter(path, text)), columns)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            row = _json_object(f"{path}:{number}", line)
            _need_columns(f"{path}:{number}", list(row), columns)
            yield number, row


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
    """Refuses what may stand in a table, or in the tables of a corpus, once only."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def __call__(self, what: str, where: str) -> None:
        """Raise a DataError if `what` was there before; `where` names file and line."""
        first = self._first.setdefault(what, where)
        if first is not where:
            raise DataError(where, "duplicate", f"{what[:80]} stands in {first} too; remove one")


def _text(path: Path, *, fix_encoding: bool = False) -> str:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such table") from None
    except OSError as error:
        raise DataError(str(path), "unreadable", f"cannot be read ({error.strerror})") from None
    for mark, what in _OTHER_KINDS.items():
        if data.startswith(mark):
            raise DataError(str(path), "table", f"is {what}")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        message = "holds a NUL: no text, or UTF-16; save it as UTF-8"
        raise DataError(f"{path}:{line}", "table", message)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not fix_encoding:
            line = data[: error.start].count(b"\n") + 1
            byte = f"byte {data[error.start]:#04x}"
            message = f"is no table in UTF-8 ({byte}); save it as UTF-8"
            raise DataError(f"{path}:{line}", "table", message) from None
        text = data.decode("cp1252", errors="replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return mend(text) if fix_encoding else text


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() in TABBED:
        return "\t"
    header = re.sub('"[^"]*"', "", text[: (text + "\n").index("\n")])
    return max(",;\t", key=header.count)


def _cells(
    path: Path, text: str, delimiter: str, *, spaces: bool = False
) -> Iterator[tuple[int, list[str]]]:
    """The lines that hold anything, each with its number, or that of its first one."""
    if delimiter == "\t":
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield number, line.split("\t")
        return
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=spaces
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
            yield number, cells


def _named(
    path: Path,
    lines: Iterator[tuple[int, list[str]]],
    columns: Sequence[str],
    header: Sequence[str] | None = None,
) -> Iterator[tuple[int, dict[str, str]]]:
    names = header if header is not None else next(lines, (1, []))[1]
    names = [name.strip() for name in names]
    _check_cells(f"{path}:1", names, names)
    for name in names:
        if name and names.count(name) > 1:
            raise DataError(f"{path}:1", "table", f"names the column {shown(name)} twice")
    _need_columns(str(path), names, columns)
    for number, cells in lines:
        where = f"{path}:{number}"
        if len(cells) != len(names):
            what = f"has {len(cells)} cells, the first line names {len(names)} columns"
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


def _check_cells(where: str, names: Sequence[str], cells: Sequence[str]) -> None:
    for name, cell in zip(names, cells, strict=True):
        if cell.startswith("#") and cell.strip().upper() in SPREADSHEET_ERRORS:
            message = (
                f"{name} holds {cell.strip()}: a spreadsheet took what stood there for a formula; "
                "take the table as published"
            )
            raise DataError(where, "table", message)


def _need_columns(where: str, names: Sequence[str], columns: Sequence[str]) -> None:
    if missing := [name for name in columns if name not in names]:
        there = ", ".join(map(str, names[:20])) or "none"
        message = f"has no column {' or '.join(missing)}, only {there}"
        raise DataError(where, "table", message)


def _json_object(place: str, line: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(place, "table", f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(place, "table", f"a line is a JSON object, found {type(row).__name__}")
    return row
