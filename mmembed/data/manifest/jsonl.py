"""Manifests: one JSON object a line, one line an utterance; or the same as a Parquet table.

    {"key": "grid-s1-bbaf2n", "media": "video/s1/bbaf2n.mpg", "transcript": "bin blue at f two now"}

The fields are those of `Utterance`; `labels` is an object of its own. What a row does not name has
its default. `media` is absolute or relative to the folder of the manifest. A name that ends in
`.parquet` means a table, see `mmembed.data.manifest.parquet`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, TypeAlias

from mmembed.data.manifest.parquet import count_table_rows, read_rows, write_rows
from mmembed.data.manifest.utterance import EMOTIONS, Labels, Utterance
from mmembed.errors import DataError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import parse_json, shown

TABLE: Final = ".parquet"
SUFFIXES: Final = (".jsonl", TABLE)

_FIELDS: Final = tuple(field.name for field in fields(Utterance))
_LABELS: Final = tuple(field.name for field in fields(Labels))
_NUMBERS: Final = ("start", "end", "sentiment", "sentiment_limit")
_NAMES: Final = ("streams", "present")  # lists of strings
_MARKS: Final = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16

ManifestRow: TypeAlias = Utterance | DataError
"""A row, or what is wrong with it: an error whose item is its file and line."""


def read_manifest(path: Path) -> list[Utterance]:
    """The rows of a manifest, in its order.

    Raises:
        DataError: naming the file, and the first line or row that cannot be used.
    """
    rows = read_each_row(path)
    for row in rows:
        if isinstance(row, DataError):
            raise row
    return [row for row in rows if isinstance(row, Utterance)]


def read_each_row(path: Path) -> list[ManifestRow]:
    """The rows of a manifest, in its order; one that cannot be used is the error that says why.

    Raises:
        DataError: the file cannot be read, not one of its rows can be used, or two share a key.
    """
    return list(each_row(path))


def each_row(path: Path) -> Iterator[ManifestRow]:
    """As `read_each_row`, one after another; of those that came, only the keys are in memory.

    Raises:
        DataError: as `read_each_row`, when that is known.
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
        return count_table_rows(path)
    try:
        with path.open("rb") as file:
            return sum(bool(line.strip()) for line in file)
    except FileNotFoundError:
        raise _missing(path) from None


def iterate_rows(path: Path) -> Iterator[tuple[str, ManifestRow]]:
    """Where each row of a manifest stands ("m.jsonl:3", "m.parquet: row 3"), and the row.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix.lower() == TABLE:
        for number, row in enumerate(read_rows(path), start=1):
            yield f"{path}: row {number}", row
    else:
        yield from _read_lines(path)


def row_name(row: ManifestRow) -> str:
    """The key, or file and line ("m.jsonl:3") of a row that cannot be used."""
    return Path(row.item).name if isinstance(row, DataError) else row.key


def _missing(path: Path) -> DataError:
    return DataError(str(path), "missing", "no such manifest")


def _read_lines(path: Path) -> Iterator[tuple[str, ManifestRow]]:
    """Empty lines hold nothing."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1 and line.startswith(_MARKS):
                    message = "a manifest is UTF-8 text, this is UTF-16; save it as UTF-8"
                    raise DataError(str(path), "manifest", message)
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield (place := f"{path}:{number}"), _read_line(place, text)
    except FileNotFoundError:
        raise _missing(path) from None


def _read_line(place: str, line: bytes) -> ManifestRow:
    try:
        return from_row(parse_json(line))
    except ValueError as error:
        return DataError(place, "manifest", str(error))


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest whole or not at all; the same utterances give the same bytes.

    Raises:
        DataError: two utterances share a key.
    """
    with atomic_file(path) as file:
        checked = _without_duplicates(path, utterances)
        if path.suffix.lower() == TABLE:
            write_rows(file, list(checked))
            return
        for utterance in checked:
            file.write(_to_line(to_row(utterance)))


def _to_line(row: Mapping[str, object]) -> bytes:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # the name of a file that is no UTF-8
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def _without_duplicates(path: Path, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
    seen: set[str] = set()
    for number, utterance in enumerate(utterances, start=1):
        if utterance.key in seen:
            raise DataError(f"{path}:{number}", "duplicate", f"a second {utterance.key}")
        seen.add(utterance.key)
        yield utterance


def to_row(utterance: Utterance) -> dict[str, object]:
    """An utterance as plain JSON values; fields that hold their default are left out."""
    row = _changed(utterance)
    labels = _changed(utterance.labels)
    if "labels" in row:
        row["labels"] = _jsonable(labels)
    return _jsonable(row)


def from_row(row: object) -> Utterance:
    """The inverse of `to_row`.

    Raises:
        ValueError: one line saying which field is wrong and what is allowed.
    """
    values = _checked(row, _FIELDS, "a manifest row")
    if values.get("key") is None:
        raise ValueError("a manifest row needs a key")
    values["labels"] = labels_from_row(values.get("labels", {}))
    values.setdefault("media", None)
    if values.get("start", 0.0) is None:
        raise ValueError("start must be a number, found null")
    return Utterance(**values)


def labels_from_row(row: object) -> Labels:
    """The labels of a row; {} has none.

    Raises:
        ValueError: one line saying which is wrong and what is allowed.
    """
    labels = _checked(row, _LABELS, "labels")
    if (emotions := labels.get("emotions")) is not None:
        if not isinstance(emotions, list) or len(emotions) != len(EMOTIONS):
            what = f"{len(EMOTIONS)} values in [0, 3], in the order {', '.join(EMOTIONS)}"
            raise ValueError(f"emotions {shown(emotions)}: {what}")
        labels["emotions"] = tuple(
            None if value is None else _number("emotions", value) for value in emotions
        )
    scores = labels.get("scores", {})
    if not isinstance(scores, Mapping):
        raise ValueError(f"scores must be an object of numbers, found {shown(scores)}")
    labels["scores"] = {name: _score(name, value) for name, value in scores.items()}
    return Labels(**labels)


def _jsonable(values: dict[str, object]) -> dict[str, object]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _changed(item: Utterance | Labels) -> dict[str, object]:
    plain = Utterance(key="-", media=None) if isinstance(item, Utterance) else Labels()
    return {
        field.name: getattr(item, field.name)
        for field in fields(item)
        if getattr(item, field.name) != getattr(plain, field.name) or field.name == "key"
    }


def _checked(row: object, allowed: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ValueError(f"{what} must be a JSON object, found {shown(row)}")
    unknown = [name for name in row if name not in allowed]
    if unknown:
        raise ValueError(f"unknown field {_named(unknown)}; allowed are {', '.join(allowed)}")
    return {name: _converted(name, value) for name, value in row.items()}


def _named(names: Sequence[object]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown(name).strip("'") for name in names[:3]) + more


def _converted(name: str, value: Any) -> Any:
    """A field as `Utterance` and `Labels` have it; those of several values are left to others."""
    if value is None or name in ("labels", "emotions", "scores"):
        return value
    if name in _NUMBERS:
        return _number(name, value)
    if name in _NAMES:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise ValueError(f"{name} must be a list of strings, found {shown(value)}")
        return tuple(value)
    if name == "turn":
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"turn must be a whole number, found {shown(value)}")
    elif not isinstance(value, str):
        raise ValueError(f"{name} must be a string, found {shown(value)}")
    return value


def _number(name: str, value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # of whole numbers of hundreds of digits
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} must be a number, found {shown(value)}")


def _score(name: str, value: object) -> float:
    return _number(f"score {shown(name)}", value)
