"""Shards: plain webdataset tars with an index beside each, for reading records in any order.

A shard is two files. `shard-000000.tar` holds the members of its records, `KEY.audio.npy`,
`KEY.json`, ..., and is read by anyone's webdataset. `shard-000000.json` holds what random access
and planning need:

    {"count": 2, "bytes": 10240, "sha256": "...", "provenance": {...},
     "records": [{"key": ..., "members": {"audio.npy": [offset, size, crc32]}, "meta": {...}}, ...]}

The index is written last and is the commit: a tar without one does not exist for a reader.
The format of the tars: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy

from mmembed.data.atomic import atomic_file, sync_folder
from mmembed.errors import CorruptError, DataError

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True)
class Record:
    """What a shard holds of one item.

    Attributes:
        key: unique, without dots.
        members: "NAME.npy" -> array, "json" or "NAME.json" -> mapping of plain JSON values.
        meta: what planning needs to know without reading the members; plain JSON values.
    """

    key: str
    members: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)


def shard_path(folder: Path, number: int) -> Path:
    """Where the tar of a shard stands."""
    return folder / f"shard-{number:06d}.tar"


def write_shard(path: Path, records: Iterable[Record], provenance: Mapping[str, object]) -> None:
    """Write a shard whole or not at all; the same records give the same bytes.

    Args:
        path: of the tar; its index goes beside it.
        records: in the order they get; may be made while they are written.
        provenance: how the records were made; plain JSON values.

    Raises:
        DataError: two records share a key.
    """
    sidecar = path.with_suffix(".json")
    if sidecar.exists():  # an old index must never stand beside a new tar
        sidecar.unlink()
        sync_folder(path.parent)
    index: list[dict[str, object]] = []
    seen: set[str] = set()
    digest, position = hashlib.sha256(), 0
    with atomic_file(path) as file:

        def put(data: bytes) -> None:
            nonlocal position
            file.write(data)
            digest.update(data)
            position += len(data)

        for record in records:
            if record.key in seen:
                raise DataError(record.key, "duplicate", f"stands in {path.name} already")
            seen.add(record.key)
            members: dict[str, list[int]] = {}
            for name, value in record.members.items():
                data = _encode(name, value)
                put(_header(f"{record.key}.{name}", len(data)))
                members[name] = [position, len(data), zlib.crc32(data)]
                put(data + bytes(-len(data) % tarfile.BLOCKSIZE))
            index.append({"key": record.key, "members": members, "meta": dict(record.meta)})
        end = position + 2 * tarfile.BLOCKSIZE  # an archive ends with two empty blocks
        put(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
    _write_json(
        sidecar,
        {
            "count": len(index),
            "bytes": position,
            "sha256": digest.hexdigest(),
            "provenance": dict(provenance),
            "records": index,
        },
    )


def is_committed(path: Path) -> bool:
    """Whether the shard with this tar is there as a whole."""
    try:
        _read_sidecar(path.with_suffix(".json"))
    except (FileNotFoundError, CorruptError):
        return False
    return True


def shard_sidecars(folder: Path) -> list[dict[str, Any]]:
    """The indices of all committed shards of a folder, in their order.

    Raises:
        CorruptError: an index is damaged, or its tar is missing or of another size.
    """
    return [_read_sidecar(path) for path in sorted(folder.glob("shard-*.json"))]


def finish(folder: Path, **provenance: object) -> None:
    """Write `manifest.json`: what all shards of a folder have in common."""
    _write_json(folder / MANIFEST, provenance)


class ShardSet:
    """The committed shards of a folder as one sequence of records, read in any order.

    It holds no open files: it may be used by many threads, forked and sent to other processes.

    Attributes:
        keys: of all records, in order.
        manifest: what `finish` wrote, {} without.

    Raises:
        DataError: the folder holds no shard, or two records share a key.
        CorruptError: an index is damaged, or its tar is missing or of another size.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sidecars = sorted(folder.glob("shard-*.json"))
        if not self._sidecars:
            raise DataError(str(folder), "missing", "holds no shards")
        self._records: list[tuple[Path, dict[str, Any]]] = []
        self._sha256: dict[Path, str] = {}
        for sidecar in self._sidecars:
            index, tar = _read_sidecar(sidecar), sidecar.with_suffix(".tar")
            self._records += [(tar, record) for record in index["records"]]
            self._sha256[tar] = index["sha256"]
        self.keys = tuple(str(record["key"]) for _, record in self._records)
        self._places = {key: place for place, key in enumerate(self.keys)}
        if len(self._places) < len(self.keys):
            key, place = next((k, i) for i, k in enumerate(self.keys) if self._places[k] != i)
            both = f"{self._records[place][0].name} and {self._records[self._places[key]][0].name}"
            raise DataError(f"{folder}: {key}", "duplicate", f"stands twice, in {both}")
        manifest = folder / MANIFEST
        self.manifest: dict[str, Any] = _read_json(manifest) if manifest.exists() else {}

    def __len__(self) -> int:
        return len(self.keys)

    def meta(self, index: int) -> Mapping[str, Any]:
        """What the index holds of a record beside its members."""
        meta: Mapping[str, Any] = self._records[index][1]["meta"]
        return meta

    def index_of(self, key: str) -> int:
        """The place of a record.

        Raises:
            KeyError: no record has this key.
        """
        return self._places[key]

    def read(self, index: int, members: Sequence[str] | None = None) -> Record:
        """Read one record.

        Args:
            index: its place, counted from 0.
            members: the names to read, of those the record has; None = all.

        Raises:
            CorruptError: the bytes there are not those written.
        """
        tar, record = self._records[index]
        read = {}
        try:
            with tar.open("rb", buffering=0) as file:
                for name, (offset, size, checksum) in record["members"].items():
                    if members is None or name in members:
                        data = os.pread(file.fileno(), size, offset)
                        if zlib.crc32(data) != checksum:
                            raise ValueError(f"{name} has another checksum")
                        read[name] = _decode(name, data)
        except (ValueError, FileNotFoundError) as error:
            raise CorruptError(f"{tar}: {record['key']} is damaged: {error}") from None
        return Record(record["key"], read, record["meta"])

    def verify(self) -> None:
        """Compare every byte with the checksums.

        Raises:
            CorruptError: naming the first file that differs.
        """
        for tar, expected in self._sha256.items():
            with tar.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise CorruptError(f"{tar}: damaged (its SHA-256 differs); delete it and its .json")


def _header(name: str, size: int) -> bytes:
    """A tar header in which nothing depends on when, where and by whom it is written.

    USTAR, with an extended header (POSIX.1-2001) only for names it cannot hold.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _encode(name: str, value: object) -> bytes:
    if name.endswith(".npy"):
        buffer = io.BytesIO()
        npy.write_array(buffer, np.asarray(value, order="C"), allow_pickle=False)
        return buffer.getvalue()
    return _to_json(value)


def _decode(name: str, data: bytes) -> Any:
    if name.endswith(".npy"):
        return npy.read_array(io.BytesIO(data), allow_pickle=False)
    return json.loads(data)


def _to_json(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def _write_json(path: Path, value: object) -> None:
    with atomic_file(path) as file:
        file.write(_to_json(value) + b"\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptError(f"{path}: damaged: {error}") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{path}: damaged: not a JSON object")
    return value


def _read_sidecar(path: Path) -> dict[str, Any]:
    """A checked index, the size of its tar included."""
    index, tar = _read_json(path), path.with_suffix(".tar")
    missing = {"count", "bytes", "sha256", "records", "provenance"} - set(index)
    if missing or index["count"] != len(index["records"]):
        raise CorruptError(f"{path}: damaged: not the index of a shard")
    if not tar.exists():
        raise CorruptError(f"{tar}: missing, its index {path.name} is there; delete that")
    size = tar.stat().st_size
    if size != index["bytes"]:
        raise CorruptError(
            f"{tar}: damaged: {size} bytes, {index['bytes']} were written; delete it and its .json"
        )
    return index
