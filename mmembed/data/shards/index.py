"""The indices of many shards as columns: a row for each record, with its members and its meta.

Each column of each batch of rows that was mapped is validated in full when it is first used, and
compared with its checksum: the one is against forgery, the other against accidents.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmembed.data.shards.format import Member
from mmembed.errors import CorruptError
from mmembed.io.checksum import crc32

NUMBERS: Final = ("lengths.audio", "lengths.video", "lengths.text", "frames")
TEXTS: Final = ("split", "speaker", "transcript")
"""Entries of `meta`, nested ones joined by dots, that are columns of their own; where a record has
no such entry a number is 0 and a text is null."""

MEMBER: Final = pa.struct(
    [("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.uint32())]
)
SCHEMA: Final = pa.schema(
    [
        ("key", pa.string()),
        ("members", pa.list_(MEMBER)),
        ("meta", pa.string()),
        *((name, pa.int64()) for name in NUMBERS),
        *((name, pa.string()) for name in TEXTS),
    ]
)


@dataclass(frozen=True)
class Shard:
    """A shard's tar and the number of its rows.

    Attributes:
        name: "shard-000000.tar".
        size: bytes of the tar.
        sha256: of the tar, in hexadecimal digits.
        count: records in it.
    """

    name: str
    size: int
    sha256: str
    count: int


@dataclass(frozen=True)
class ShardBatch:
    """Rows of whole shards; `checksums` of the columns where they come from a file."""

    rows: pa.RecordBatch
    shards: tuple[Shard, ...]
    checksums: Mapping[str, int] | None = None


class ShardIndex:
    """Rows of records, in memory or mapped.

    Attributes:
        shards: in the order of their rows.
        starts: first row of each shard, and the number of rows.
    """

    def __init__(self, batches: Iterable[ShardBatch], name: str) -> None:
        self._name = name
        self._batches = list(batches)
        self._firsts = [0, *accumulate(batch.rows.num_rows for batch in self._batches)]
        self.shards = [shard for batch in self._batches for shard in batch.shards]
        self.starts = [0, *accumulate(shard.count for shard in self.shards)]
        self._columns: dict[tuple[int, str], pa.Array] = {}
        self._members: dict[int, tuple[list[int], pa.Array, list[NDArray[Any]]]] = {}

    def __len__(self) -> int:
        return self.starts[-1]

    def shard_of(self, index: int) -> Shard:
        """The shard a record stands in."""
        return self.shards[bisect_right(self.starts, index) - 1]

    def key(self, index: int) -> str:
        """The key of a record.

        Raises:
            IndexError: there is no such record.
        """
        batch, row = self._find(index)
        key: str = self._column(batch, "key")[row].as_py()
        return key

    def meta(self, index: int) -> dict[str, Any]:
        """The meta of a record."""
        batch, row = self._find(index)
        try:
            meta = json.loads(self._column(batch, "meta")[row].as_py())
            if not isinstance(meta, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            where = f"{self._name}: damaged: meta of record {index}"
            raise CorruptError(f"{where}: {error}; delete it") from None
        return meta

    def members(self, index: int) -> list[Member]:
        """The members of a record."""
        batch, row = self._find(index)
        if batch not in self._members:  # the scalars of Arrow take three times as long
            column = self._column(batch, "members")
            names, *numbers = column.values.flatten()
            ends = column.offsets.to_pylist()
            self._members[batch] = ends, names, [values.to_numpy() for values in numbers]
        ends, names, numbers = self._members[batch]
        part = slice(ends[row], ends[row + 1])
        columns = names[part].to_pylist(), *(values[part].tolist() for values in numbers)
        return [Member(*values) for values in zip(*columns, strict=True)]

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column.

        Raises:
            KeyError: there is no such column.
        """
        arrays = [self._column(batch, name) for batch in range(len(self._batches))]
        return pa.chunked_array(arrays, SCHEMA.field(name).type)

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        batch = bisect_right(self._firsts, index) - 1
        return batch, index - self._firsts[batch]

    def _column(self, batch: int, name: str) -> pa.Array:
        """A column of a batch, checked when first used where it comes from a file."""
        column = self._columns.get((batch, name))
        if column is None:
            source = self._batches[batch]
            column = source.rows.column(name)
            if source.checksums is not None:
                try:
                    if column_checksum(column) != source.checksums[name]:
                        raise ValueError("its checksum differs")
                    column.validate(full=True)
                    _check_values(column, name, source.shards)
                except (ValueError, pa.ArrowException) as error:
                    what = f"{self._name}: damaged: {name}: {error}"
                    raise CorruptError(f"{what}; delete it, the shards' own remain") from None
            self._columns[batch, name] = column
        return column


def _check_values(column: pa.Array, name: str, shards: Sequence[Shard]) -> None:
    """Raises ValueError where a validated column holds what no shard's index may."""
    if column.null_count and name not in TEXTS:
        raise ValueError("a value is missing")
    if name in NUMBERS and len(column) and pc.min(column).as_py() < 0:
        raise ValueError("a number is negative")
    if name != "members":
        return
    names, *numbers = column.values.flatten()
    if any(values.null_count for values in (names, *numbers)):
        raise ValueError("a value is missing")
    offsets, sizes, _ = (values.to_numpy() for values in numbers)
    ends = column.offsets.to_numpy()
    tars = np.repeat([shard.size for shard in shards], [shard.count for shard in shards])
    space = np.repeat(tars, np.diff(ends))
    sizes, offsets = sizes[ends[0] : ends[-1]], offsets[ends[0] : ends[-1]]
    if ((sizes < 0) | (offsets < 0) | (sizes > space)).any() or (offsets > space - sizes).any():
        raise ValueError("a member lies outside of its shard")


def column_checksum(column: pa.Array) -> int:
    """CRC-32 of the buffers of a column."""
    checksum = 0
    for buffer in column.buffers():
        if buffer is not None:
            checksum = crc32(buffer, checksum)
    return checksum
