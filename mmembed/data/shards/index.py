"""The indices of many shards as columns, in one file that is mapped rather than read.

`index.arrow` is an Arrow IPC file with a row for each record: its key, its members, its meta as
JSON, and what planning asks of all records at once as columns of their own. Any Arrow reader opens
it. It only repeats the shards' own indices, which stay the truth: it names the files it was made
of with their sizes, and where those are others now it is passed over. Each column of each batch of
rows is validated in full when it is first used, and compared with its checksum: the one is against
forgery, the other against accidents.

Format: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmembed.data.shards.format import Member, to_json
from mmembed.errors import CorruptError, DataError
from mmembed.io.arrow import ArrowFile
from mmembed.io.atomic import atomic_file
from mmembed.io.checksum import crc32

NUMBERS: Final = ("lengths.audio", "lengths.video", "lengths.text", "frames")
TEXTS: Final = ("split", "speaker", "transcript")
"""Entries of `meta`, nested ones joined by dots, that are columns of their own; where a record has
no such entry a number is 0 and a text is null."""

_BATCH: Final = 16_384  # rows at least; a batch holds whole shards
_MEMBER: Final = pa.struct(
    [("name", pa.string()), ("offset", pa.int64()), ("size", pa.int64()), ("crc32", pa.uint32())]
)
_SCHEMA: Final = pa.schema(
    [
        ("key", pa.string()),
        ("members", pa.list_(_MEMBER)),
        ("meta", pa.string()),
        *((name, pa.int64()) for name in NUMBERS),
        *((name, pa.string()) for name in TEXTS),
    ]
)


@dataclass(frozen=True)
class Shard:
    """A shard's tar and its place among the rows.

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
class _Batch:
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

    def __init__(self, batches: Iterable[_Batch], name: str) -> None:
        self._name = name
        self._batches = list(batches)
        self._firsts = [0, *accumulate(batch.rows.num_rows for batch in self._batches)]
        self.shards = [shard for batch in self._batches for shard in batch.shards]
        self.starts = [0, *accumulate(shard.count for shard in self.shards)]
        self._columns: dict[tuple[int, str], pa.Array] = {}
        self._texts: dict[tuple[int, str], _Texts] = {}
        self._members: dict[int, _Members] = {}

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
        return self._text(batch, "key")[row]

    def meta(self, index: int) -> dict[str, Any]:
        """The meta of a record."""
        batch, row = self._find(index)
        try:
            meta = json.loads(self._text(batch, "meta")[row])
            if not isinstance(meta, dict):
                raise ValueError("no object")
        except (ValueError, RecursionError) as error:
            where = f"{self._name}: damaged: meta of record {index}"
            raise CorruptError(f"{where}: {error}; delete it") from None
        return meta

    def members(self, index: int) -> list[Member]:
        """The members of a record."""
        batch, row = self._find(index)
        view = self._members.get(batch)
        if view is None:
            view = self._members[batch] = _Members(self._column(batch, "members"))
        return view[row]

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column.

        Raises:
            KeyError: there is no such column.
        """
        arrays = [self._column(batch, name) for batch in range(len(self._batches))]
        return pa.chunked_array(arrays, _SCHEMA.field(name).type)

    def table(self) -> pa.Table:
        """All rows."""
        return pa.table([self.column(name) for name in _SCHEMA.names], schema=_SCHEMA)

    def holds(self, number: int, tar: str, sidecar: Mapping[str, Any], table: pa.Table) -> bool:
        """Whether shard `number` is this one, its rows in `table` being those of the sidecar.

        Args:
            number: of the shard, counted from 0.
            tar: name of its tar.
            sidecar: checked.
            table: all rows.
        """
        if not number < len(self.shards) or self.shards[number] != _shard(tar, sidecar):
            return False
        rows = pa.Table.from_batches([_rows(sidecar["records"])])
        return bool(rows.equals(table.slice(self.starts[number], sidecar["count"])))

    def _find(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        batch = bisect_right(self._firsts, index) - 1
        return batch, index - self._firsts[batch]

    def _text(self, batch: int, name: str) -> _Texts:
        view = self._texts.get((batch, name))
        if view is None:
            view = self._texts[batch, name] = _Texts(self._column(batch, name))
        return view

    def _column(self, batch: int, name: str) -> pa.Array:
        """A column of a batch, checked when first used where it comes from a file."""
        column = self._columns.get((batch, name))
        if column is None:
            held = self._batches[batch]
            column = held.rows.column(name)
            if held.checksums is not None:
                try:
                    if _checksum(column) != held.checksums[name]:
                        raise ValueError("its checksum differs")
                    column.validate(full=True)
                    _check_values(column, name, held.shards)
                except (ValueError, pa.ArrowException) as error:
                    raise CorruptError(
                        f"{self._name}: damaged: {name}: {error}; delete it, the shards' own remain"
                    ) from None
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


class _Texts:
    """The values of a text column one by one, in a third of the time of Arrow's scalars."""

    def __init__(self, column: pa.Array) -> None:
        _, ends, data = column.buffers()
        self._ends = _values(ends, "i", len(column) + 1)
        self._data = memoryview(data or b"")

    def __getitem__(self, row: int) -> str:
        return str(self._data[self._ends[row] : self._ends[row + 1]], "utf-8")


class _Members:
    """The values of the column of members one by one, likewise."""

    def __init__(self, column: pa.Array) -> None:
        self._ends = _values(column.buffers()[1], "i", len(column) + 1)
        name, *numbers = column.values.flatten()
        self._names = _Texts(name)
        self._numbers = [
            _values(values.buffers()[1], "I" if values.type == pa.uint32() else "q", len(values))
            for values in numbers
        ]

    def __getitem__(self, row: int) -> list[Member]:
        offsets, sizes, checksums = self._numbers
        return [
            Member(self._names[i], offsets[i], sizes[i], checksums[i])
            for i in range(self._ends[row], self._ends[row + 1])
        ]


def _values(buffer: pa.Buffer | None, code: Literal["i", "I", "q"], count: int) -> memoryview:
    """The values of a buffer, which may be longer."""
    view: memoryview = memoryview(buffer or b"")[: count * struct.calcsize(code)].cast(code)
    return view


def gather(sidecars: Iterable[tuple[str, Mapping[str, Any]]], folder: str) -> ShardIndex:
    """The index of checked sidecars, given with the names of their tars.

    Raises:
        DataError: two records share a key.
    """
    index = ShardIndex(_batches(sidecars, folder), folder)
    check_keys(index, folder)
    return index


def check_keys(index: ShardIndex, folder: str) -> None:
    """No two records may share a key.

    Raises:
        DataError: two do.
    """
    keys = index.column("key")
    if pc.count_distinct(keys).as_py() == len(keys):
        return
    first: dict[str, int] = {}
    for row, key in enumerate(keys.to_pylist()):
        if first.setdefault(key, row) != row:
            both = f"{index.shard_of(first[key]).name} and {index.shard_of(row).name}"
            raise DataError(f"{folder}: {key}", "duplicate", f"stands twice, in {both}")


def write_index(
    path: Path, sidecars: Iterable[tuple[str, Mapping[str, Any]]], sizes: Mapping[str, int]
) -> None:
    """Write the index of checked sidecars, given with the names of their tars.

    Little more than a batch of rows is in memory at a time.

    Args:
        path: of the file.
        sidecars: all of a folder.
        sizes: bytes of all files of the folder, for `fingerprint`.

    Raises:
        DataError: two records share a key.
    """
    schema = _SCHEMA.with_metadata({"fingerprint": fingerprint(sizes)})
    with atomic_file(path) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for batch in _batches(sidecars, str(path.parent)):
                # Through the format once: the buffers a reader will see.
                rows = pa.ipc.read_record_batch(batch.rows.serialize(), _SCHEMA)
                sums = {name: _checksum(rows.column(name)) for name in _SCHEMA.names}
                about = to_json(
                    {"checksums": sums, "shards": [astuple(shard) for shard in batch.shards]}
                )
                seal = {"about": about, "crc32": str(crc32(about))}
                writer.write_batch(rows, custom_metadata=seal)
        file.flush()
        with open(file.name, "rb") as written:
            index = map_index(written.fileno(), str(path), sizes)
            assert index is not None
            check_keys(index, str(path.parent))


def map_index(descriptor: int, name: str, sizes: Mapping[str, int]) -> ShardIndex | None:
    """The index in an open file; None where it is not that of these shards, or none at all."""
    try:
        file = ArrowFile(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
        if file.schema.metadata != {b"fingerprint": fingerprint(sizes).encode()}:
            return None
        if not file.schema.equals(_SCHEMA):
            return None
        index = ShardIndex([_mapped(rows, seal) for rows, seal in file.batches], name)
        held = [(shard.name, shard.size) for shard in index.shards]
        return index if held == [(tar, sizes.get(tar)) for _, tar in shard_names(sizes)] else None
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, RecursionError):
        return None


def _mapped(rows: pa.RecordBatch, seal: Mapping[bytes, bytes]) -> _Batch:
    """A batch whose shards and size are checked; its columns are when they are used."""
    rows.validate()
    about = seal[b"about"]
    if str(crc32(about)).encode() != seal[b"crc32"]:
        raise ValueError("the description of a batch is damaged")
    described = json.loads(about)
    shards = tuple(Shard(*shard) for shard in described["shards"])
    for shard in shards:
        if list(map(type, astuple(shard))) != [str, int, str, int] or shard.count < 0:
            raise ValueError("the description of a shard is no such thing")
    if sum(shard.count for shard in shards) != rows.num_rows:
        raise ValueError("the rows are not those of the shards")
    sums = described["checksums"]
    if not isinstance(sums, dict) or set(sums) != set(_SCHEMA.names):
        raise ValueError("there are no checksums")
    return _Batch(rows, shards, sums)


def fingerprint(sizes: Mapping[str, int]) -> str:
    """A digest of the names and sizes of a folder's committed shards."""
    lines = [f"{tar} {sizes.get(tar)} {sizes[sidecar]}\n" for sidecar, tar in shard_names(sizes)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def shard_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """(sidecar, tar) of the committed shards among the files of a folder, in their order."""
    sidecars = sorted(n for n in names if n.startswith("shard-") and n.endswith(".json"))
    return [(name, name.removesuffix(".json") + ".tar") for name in sidecars]


def _batches(sidecars: Iterable[tuple[str, Mapping[str, Any]]], folder: str) -> Iterator[_Batch]:
    held: list[tuple[str, Mapping[str, Any]]] = []
    count = 0
    for tar, sidecar in sidecars:
        held.append((tar, sidecar))
        count += sidecar["count"]
        if count >= _BATCH:
            yield _batch(held, folder)
            held, count = [], 0
    yield _batch(held, folder)


def _batch(sidecars: Sequence[tuple[str, Mapping[str, Any]]], folder: str) -> _Batch:
    try:
        rows = _rows([record for _, sidecar in sidecars for record in sidecar["records"]])
    except _INVALID:
        for tar, sidecar in sidecars:  # which of them?
            try:
                _rows(sidecar["records"])
            except _INVALID as error:
                where = f"{folder}/{tar.removesuffix('.tar')}.json"
                raise CorruptError(f"{where}: damaged: {error!r}; delete it and its .tar") from None
        raise
    return _Batch(rows, tuple(_shard(tar, sidecar) for tar, sidecar in sidecars))


def _shard(tar: str, sidecar: Mapping[str, Any]) -> Shard:
    return Shard(tar, sidecar["bytes"], sidecar["sha256"], sidecar["count"])


_INVALID: Final = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError
)  # fmt: skip
"""What values raise that are no index; Arrow's errors are ValueErrors."""


def _rows(records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Raises one of `_INVALID`."""
    members = [record["members"] for record in records]
    names = [name for held in members for name in held]
    places = [place for held in members for place in held.values()]
    metas = [record["meta"] for record in records]
    columns = [
        pa.array([record["key"] for record in records], pa.string()),
        pa.ListArray.from_arrays(
            pa.array([0, *accumulate(map(len, members))], pa.int32()),
            pa.StructArray.from_arrays(
                [
                    pa.array(names, pa.string()),
                    *(
                        pa.array([place[part] for place in places], _MEMBER[1 + part].type)
                        for part in range(3)
                    ),
                ],
                fields=list(_MEMBER),
            ),
        ),
        pa.array([to_json(meta).decode() for meta in metas], pa.string()),
        *(_entries(metas, name, int, 0) for name in NUMBERS),
        *(_entries(metas, name, str, None) for name in TEXTS),
    ]
    return pa.record_batch(columns, schema=_SCHEMA)


def _entries(metas: Sequence[Any], name: str, kind: type, absent: object) -> pa.Array:
    for part in name.split("."):
        metas = [meta.get(part) if isinstance(meta, dict) else None for meta in metas]
    values = [value if type(value) is kind else absent for value in metas]
    if any(type(value) is int and value < 0 for value in values):
        raise ValueError(f"{name} is negative")
    return pa.array(values, _SCHEMA.field(name).type)


def _checksum(column: pa.Array) -> int:
    checksum = 0
    for buffer in column.buffers():
        if buffer is not None:
            checksum = crc32(buffer, checksum)
    return checksum
