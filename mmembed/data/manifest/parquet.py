"""Manifests as Parquet: a column for each field of an utterance, `labels.NAME` for each label.

Scores on a corpus' own scale are columns too, such as `labels.scores.valence`. A null stands for
what a JSON row does not name. Any other tool reads and writes such tables.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError
from mmembed.io.json import shown

LABELS: Final = "labels."
SCORES: Final = "labels.scores."
EMOTIONS: Final = "labels.emotions"  # null in it is an emotion that is not labelled
ROWS: Final = 100_000  # in a row group; what is in memory as columns

_OTHER: Final = {
    "start": pa.float64(),
    "end": pa.float64(),
    "turn": pa.int64(),
    "streams": pa.list_(pa.string()),
    "labels.sentiment": pa.float64(),
    "labels.sentiment_limit": pa.float64(),
    EMOTIONS: pa.list_(pa.float64()),
    "labels.present": pa.list_(pa.string()),
}
_FIELDS: Final = tuple(field.name for field in fields(Utterance) if field.name != "labels")
_LABELS: Final = tuple(LABELS + field.name for field in fields(Labels) if field.name != "scores")
_PLAIN: Final = Labels()
_UNLABELLED: Final = (None,) * len(_LABELS)
COLUMNS: Final = {name: _OTHER.get(name, pa.string()) for name in _FIELDS + _LABELS}
"""The type of each column; those of scores are numbers."""


def write_rows(file: BinaryIO, utterances: Sequence[Utterance]) -> None:
    """Write a table; the same utterances give the same bytes under the same pyarrow."""
    scores = sorted({name for utterance in utterances for name in utterance.labels.scores})
    schema = pa.schema([*COLUMNS.items(), *((SCORES + name, pa.float64()) for name in scores)])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for first in range(0, len(utterances), ROWS):
            part = utterances[first : first + ROWS]
            try:
                table = pa.table([_values(part, name) for name in schema.names], schema)
            except UnicodeEncodeError as error:
                message = "is no UTF-8, which a Parquet table cannot hold; write a .jsonl manifest"
                raise DataError(ascii(error.object), "manifest", message) from None
            writer.write_table(table)


def _values(utterances: Sequence[Utterance], name: str) -> list[Any]:
    if name.startswith(SCORES):
        score = name.removeprefix(SCORES)
        return [utterance.labels.scores.get(score) for utterance in utterances]
    if name.startswith(LABELS):
        label = name.removeprefix(LABELS)
        return [getattr(utterance.labels, label) for utterance in utterances]
    return [getattr(utterance, name) for utterance in utterances]


def read_rows(path: Path) -> Iterator[Utterance | DataError]:
    """The rows of a table, one after another; one that cannot be used is the error that says why,
    naming its row, counted from 1.

    Raises:
        DataError: not such a table, or a column that does not belong into one.
    """
    with _open(path) as file:
        schema = file.schema_arrow
        _check_names(path, schema.names)
        types = {name: _type(path, name, schema.field(name).type) for name in schema.names}
        number = 0
        for group in range(file.num_row_groups):
            table = _read_group(path, file, group, schema.names)
            absent: list[Any] = [None] * len(table)
            found = {name: _cast(table, name, kind) for name, kind in types.items()}
            scores = {x.removeprefix(SCORES): found[x] for x in found if x.startswith(SCORES)}
            rows = zip(*(found.get(name, absent) for name in _FIELDS), strict=True)
            labels = zip(*(found.get(name, absent) for name in _LABELS), strict=True)
            for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
                number += 1
                try:
                    yield _utterance(row, label, {x: v[index] for x, v in scores.items()})
                except ValueError as error:
                    yield DataError(f"{path}: row {number}", "manifest", str(error))


def count_table_rows(path: Path) -> int:
    """How many rows a table has.

    Raises:
        DataError: not such a table.
    """
    with _open(path) as file:
        return int(file.metadata.num_rows)


def _check_names(path: Path, names: Sequence[str]) -> None:
    if twice := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(str(path), "manifest", f"has the column {twice[0]} twice")


@dataclass(frozen=True)
class _Wrong:
    """Stands in a row for a value that is not of its column's kind."""

    message: str


def _utterance(
    row: Sequence[Any], label: Sequence[Any], scores: Mapping[str, float | None]
) -> Utterance:
    for value in (*row, *label, *scores.values()):
        if isinstance(value, _Wrong):
            raise ValueError(value.message)
    key, media, start, end, *rest = row
    if key is None:
        raise ValueError("a manifest row needs a key")
    start = 0.0 if start is None else start
    held = {name: score for name, score in scores.items() if score is not None}
    for name, score in held.items():
        if not math.isfinite(score):
            raise ValueError(f"{SCORES}{name} must be a number, found {score}")
    bare = not held and label == _UNLABELLED
    labels = _PLAIN if bare else Labels(*label, scores=held)  # type: ignore[misc]
    return Utterance(key, media, start, end, *rest, labels=labels)  # type: ignore[misc]


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such manifest") from None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _read_group(path: Path, file: Any, group: int, names: Sequence[str]) -> Any:
    try:
        return file.read_row_group(group, columns=list(names))
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).split("\n", 1)[0]
    return DataError(str(path), "manifest", f"not a Parquet file, or damaged: {reason}")


def _type(path: Path, name: str, found: Any) -> Any:
    """What a column is converted to."""
    wanted = pa.float64() if name.startswith(SCORES) else COLUMNS.get(name)
    if wanted is None:
        raise DataError(
            str(path),
            "manifest",
            f"unknown column {name}; allowed are {', '.join(COLUMNS)} and {SCORES}NAME",
        )
    if found != pa.null() and _kind(found) != _kind(wanted):
        message = f"column {name} must hold {wanted}, found {found}"
        raise DataError(str(path), "manifest", message)
    return wanted


def _kind(kind: Any) -> str:
    """Which types may be turned into each other: numbers, strings, lists of either."""
    types = pa.types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {_kind(kind.value_type)}"
    if types.is_dictionary(kind):
        return _kind(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "string"
    return str(kind)


def _cast(table: Any, name: str, wanted: Any) -> list[Any]:
    """A column as Python values, lists as tuples; `_Wrong` where a value is none of its kind."""
    column = table.column(name)
    if column.null_count == len(column):
        return [None] * len(column)
    try:
        column = column.cast(wanted).combine_chunks()
    except pa.ArrowException:
        return [_cast_one(name, value, wanted) for chunk in column.chunks for value in chunk]
    if not pa.types.is_list(wanted):
        return _as_python(column)
    flat, ends = _as_python(column.values), column.offsets.to_pylist()
    spans = zip(column.is_valid().to_pylist(), ends, ends[1:], strict=False)
    values = [tuple(flat[start:end]) if valid else None for valid, start, end in spans]
    if column.values.null_count and name != EMOTIONS:
        wrong = _Wrong(f"{name} holds null in a list")
        return [wrong if value and None in value else value for value in values]
    return values


def _cast_one(name: str, value: Any, wanted: Any) -> Any:
    try:
        found = value.cast(wanted).as_py()
    except (pa.ArrowException, ValueError):
        return _Wrong(f"{name} must hold {wanted}, found {shown(str(value))}")
    if isinstance(found, list):
        wrong = None in found and name != EMOTIONS
        return _Wrong(f"{name} holds null in a list") if wrong else tuple(found)
    return found


def _as_python(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # as in a path: what is no UTF-8 is checked where it is used
        held = column.cast(pa.binary()).to_pylist()
        return [None if x is None else x.decode(errors="surrogateescape") for x in held]
    return values
