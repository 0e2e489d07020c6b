"""Manifests as Parquet: a column for each field of an utterance, `labels.NAME` for each label.

Scores on a corpus' own scale are columns too, such as `labels.scores.valence`, and so are
words with times, where a row has some. A null stands for what a JSON row does not name. Any other
tool reads and writes such tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from decimal import Decimal
from operator import attrgetter
from pathlib import Path
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from mmembed.data.manifest.utterance import Labels, Utterance, from_row
from mmembed.errors import DataError

LABELS: Final = "labels."
SCORES: Final = "labels.scores."
ROWS: Final = 100_000  # in a row group; what is in memory as columns

_OTHER: Final = {
    "start": pa.float64(),
    "end": pa.float64(),
    "turn": pa.int64(),
    "streams": pa.list_(pa.string()),
    "words": pa.list_(
        pa.struct([("text", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
    ),
    "labels.sentiment": pa.float64(),
    "labels.sentiment_limit": pa.float64(),
    "labels.emotions": pa.list_(pa.float64()),  # a null in it is an emotion that is not labelled
    "labels.present": pa.list_(pa.string()),
}
_FIELDS: Final = [field.name for field in fields(Utterance) if field.name != "labels"]
_LABELS: Final = [LABELS + field.name for field in fields(Labels) if field.name != "scores"]
COLUMNS: Final = {name: _OTHER.get(name, pa.string()) for name in _FIELDS + _LABELS}
"""The type of each column; those of scores are numbers."""


def write_rows(file: BinaryIO, utterances: Sequence[Utterance]) -> None:
    """Write a table; the same utterances give the same bytes under the same pyarrow."""
    scores = sorted({name for utterance in utterances for name in utterance.labels.scores})
    timed = any(utterance.words is not None for utterance in utterances)
    columns = {name: kind for name, kind in COLUMNS.items() if name != "words" or timed}
    schema = pa.schema([*columns.items(), *((SCORES + name, pa.float64()) for name in scores)])
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
    if name == "words":
        return [x.words and [asdict(word) for word in x.words] for x in utterances]
    return list(map(attrgetter(name), utterances))  # such as labels.category


def read_rows(path: Path) -> Iterator[Utterance | DataError]:
    """The rows of a table, one after another; one that cannot be used is the error that says why,
    naming its row, counted from 1.

    Raises:
        DataError: not such a table, or a column that does not belong into one.
    """
    with _open(path) as file:
        names = file.schema_arrow.names
        for name in names:
            if names.count(name) > 1:
                raise DataError(str(path), "manifest", f"has the column {name} twice")
            if name not in COLUMNS and not name.startswith(SCORES):
                allowed = f"{', '.join(COLUMNS)} and {SCORES}NAME"
                message = f"unknown column {name}; allowed are {allowed}"
                raise DataError(str(path), "manifest", message)
        number = 0
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group)
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from None
            columns = [_as_python(table.column(name)) for name in names]
            for values in zip(*columns, strict=True):
                number += 1
                try:
                    yield _utterance(dict(zip(names, values, strict=True)))
                except ValueError as error:
                    yield DataError(f"{path}: row {number}", "manifest", str(error))


def count_table_rows(path: Path) -> int:
    """How many rows a table has.

    Raises:
        DataError: not such a table.
    """
    with _open(path) as file:
        return int(file.metadata.num_rows)


def _utterance(cells: Mapping[str, Any]) -> Utterance:
    row: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    for name, value in cells.items():
        if value is None:
            continue
        if isinstance(value, Decimal):
            value = float(value)
        if name == "turn" and isinstance(value, float) and value.is_integer():
            value = int(value)  # pandas has no whole numbers beside nulls
        if name.startswith(SCORES):
            scores[name.removeprefix(SCORES)] = value
        elif name.startswith(LABELS):
            labels[name.removeprefix(LABELS)] = value
        else:
            row[name] = value
    return from_row({**row, "labels": {**labels, "scores": scores}})


def _open(path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such manifest") from None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).split("\n", 1)[0]
    return DataError(str(path), "manifest", f"not a Parquet file, or damaged: {reason}")


def _as_python(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:  # as in a path: what is no UTF-8 is checked where it is used
        held = column.cast(pa.binary()).to_pylist()
        return [None if x is None else x.decode(errors="surrogateescape") for x in held]
    return values
