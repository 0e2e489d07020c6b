"""The index of a folder of shards: made of their own indices, written to one file, and mapped.

`index.arrow` is an Arrow IPC file with a row for each record: its key, its members, its meta as
JSON, and what planning asks of all records at once as columns of their own. Any Arrow reader opens
it. It only repeats the shards' own indices, which stay the truth: it names the files it was made
of with their sizes, and where those are others now it is passed over.

Format: https://arrow.apache.org/docs/format/Columnar.html
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from mmembed.data.shards.format import to_json
from mmembed.data.shards.index import (
    MEMBER,
    NUMBERS,
    SCHEMA,
    TEXTS,
    Shard,
    ShardBatch,
    ShardIndex,
    column_checksum,
)
from mmembed.errors import CorruptError, DataError
from mmembed.io.arrow import ArrowFile
from mmembed.io.atomic import atomic_file
from mmembed.io.checksum import crc32

Sidecar: TypeAlias = tuple[str, Mapping[str, Any]]
"""The name of a tar, and its checked index."""

_BATCH: Final = 16_384  # rows at least; a batch holds whole shards


def gather(sidecars: Iterable[Sidecar], folder: str) -> ShardIndex:
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


def write_index(path: Path, sidecars: Iterable[Sidecar], sizes: Mapping[str, int]) -> None:
    """Write the index of checked sidecars, given with the names of their tars.

    Little more than a batch of rows is in memory at a time.

    Args:
        path: of the file.
        sidecars: all of a folder.
        sizes: bytes of all files of the folder, for `fingerprint`.

    Raises:
        DataError: two records share a key.
    """
    schema = SCHEMA.with_metadata({"fingerprint": fingerprint(sizes)})
    with atomic_file(path) as file:
        with pa.ipc.new_file(file, schema) as writer:
            for batch in _batches(sidecars, str(path.parent)):
                # Through the format once: the buffers a reader will see.
                rows = pa.ipc.read_record_batch(batch.rows.serialize(), SCHEMA)
                sums = {name: column_checksum(rows.column(name)) for name in SCHEMA.names}
                about = to_json({"checksums": sums, "shards": list(map(astuple, batch.shards))})
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
        made_of = {b"fingerprint": fingerprint(sizes).encode()}
        if file.schema.metadata != made_of or not file.schema.equals(SCHEMA):
            return None
        index = ShardIndex([_mapped(rows, seal) for rows, seal in file.batches], name)
        shards = [(shard.name, shard.size) for shard in index.shards]
        return index if shards == [(tar, sizes.get(tar)) for _, tar in shard_names(sizes)] else None
    except (pa.ArrowException, ValueError, KeyError, TypeError, OSError, RecursionError):
        return None


def _mapped(rows: pa.RecordBatch, seal: Mapping[bytes, bytes]) -> ShardBatch:
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
    if not isinstance(sums, dict) or set(sums) != set(SCHEMA.names):
        raise ValueError("there are no checksums")
    return ShardBatch(rows, shards, sums)


def fingerprint(sizes: Mapping[str, int]) -> str:
    """A digest of the names and sizes of a folder's committed shards."""
    lines = [f"{tar} {sizes.get(tar)} {sizes[sidecar]}\n" for sidecar, tar in shard_names(sizes)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def shard_names(names: Iterable[str]) -> list[tuple[str, str]]:
    """(sidecar, tar) of the committed shards among the files of a folder, in their order."""
    sidecars = sorted(n for n in names if n.startswith("shard-") and n.endswith(".json"))
    return [(name, name.removesuffix(".json") + ".tar") for name in sidecars]


def _batches(sidecars: Iterable[Sidecar], folder: str) -> Iterator[ShardBatch]:
    rows, shards, count = [_rows([])], list[Shard](), 0
    for tar, sidecar in sidecars:
        try:
            rows.append(_rows(sidecar["records"]))
        except _INVALID as error:
            where = f"{folder}/{tar.removesuffix('.tar')}.json"
            raise CorruptError(f"{where}: damaged: {error!r}; delete it and its .tar") from None
        shards.append(Shard(tar, sidecar["bytes"], sidecar["sha256"], sidecar["count"]))
        count += sidecar["count"]
        if count >= _BATCH:
            yield ShardBatch(pa.concat_batches(rows), tuple(shards))
            rows, shards, count = [_rows([])], [], 0
    yield ShardBatch(pa.concat_batches(rows), tuple(shards))


_INVALID: Final = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError
)  # fmt: skip
"""What values raise that are no index; Arrow's errors are ValueErrors."""


def _rows(records: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """Raises one of `_INVALID`."""
    members = [record["members"] for record in records]
    names = [name for record in members for name in record]
    numbers = [three for record in members for three in record.values()]
    parts = [names, *([three[part] for three in numbers] for part in range(3))]
    arrays = [pa.array(part, kind.type) for part, kind in zip(parts, MEMBER, strict=True)]
    metas = [record["meta"] for record in records]
    columns = [
        pa.array([record["key"] for record in records], pa.string()),
        pa.ListArray.from_arrays(
            pa.array([0, *accumulate(map(len, members))], pa.int32()),
            pa.StructArray.from_arrays(arrays, fields=list(MEMBER)),
        ),
        pa.array([to_json(meta).decode() for meta in metas], pa.string()),
        *(_entries(metas, name, int, 0) for name in NUMBERS),
        *(_entries(metas, name, str, None) for name in TEXTS),
    ]
    return pa.record_batch(columns, schema=SCHEMA)


def _entries(metas: Sequence[Any], name: str, kind: type, absent: object) -> pa.Array:
    for part in name.split("."):
        metas = [meta.get(part) if isinstance(meta, dict) else None for meta in metas]
    values = [value if type(value) is kind else absent for value in metas]
    if any(type(value) is int and value < 0 for value in values):
        raise ValueError(f"{name} is negative")
    return pa.array(values, SCHEMA.field(name).type)
