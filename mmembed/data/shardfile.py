"""One shard: a plain webdataset tar with an index beside it.

`shard-000000.tar` holds the members of its records, `KEY.audio.npy`, `KEY.json`, ..., and is read
by anyone's webdataset. `shard-000000.json` holds what random access and planning need:

    {"bytes": 10240, "count": 2, "provenance": {...},
     "records": [{"key": ..., "members": {"audio.npy": [offset, size, crc32]}, "meta": {...}}, ...],
     "sha256": of the tar, "sidecar_sha256": of this JSON without this entry}

The index is written last and is the commit: a tar without one does not exist for a reader.
The format of the tars: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mmembed.data.atomic import atomic_file, sync_folder
from mmembed.data.checksum import crc32
from mmembed.errors import CorruptError, DataError

FOLDER_INDEX: Final = "index.arrow"
"""All indices of a folder in one file, see `mmembed.data.shardindex`."""

_FIELDS: Final = {"bytes", "count", "provenance", "records", "sha256"}
_SEAL: Final = b',"sidecar_sha256":"'


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


def write_shard(path: Path, records: Iterable[Record], provenance: Mapping[str, object]) -> None:
    """Write a shard whole or not at all; the same records give the same bytes.

    Args:
        path: of the tar; its index goes beside it.
        records: in the order they get; may be made while they are written.
        provenance: how the records were made; plain JSON values.

    Raises:
        DataError: two records share a key, or a key has a dot.
    """
    with shard_writer(path, provenance) as put:
        for record in records:
            put(record)


@contextmanager
def shard_writer(
    path: Path, provenance: Mapping[str, object]
) -> Iterator[Callable[[Record], None]]:
    """`write_shard` for records that come one by one: the function to call with each of them.

    The shard is committed when the block ends; where that raises, nothing is.
    """
    sidecar = path.with_suffix(".json")
    for old in (path.with_name(FOLDER_INDEX), sidecar):
        if old.exists():  # an old index must never stand beside a new tar
            old.unlink(missing_ok=True)
            sync_folder(path.parent)
    index: list[dict[str, object]] = []
    seen: set[str] = set()
    digest, position = hashlib.sha256(), 0
    with atomic_file(path) as file:

        def write(data: bytes) -> None:
            nonlocal position
            file.write(data)
            digest.update(data)
            position += len(data)

        def put(record: Record) -> None:
            _check_key(record.key, seen, path)
            seen.add(record.key)
            members: dict[str, list[int]] = {}
            for name, value in record.members.items():
                data = _encode(name, value)
                write(_header(f"{record.key}.{name}", len(data)))
                members[name] = [position, len(data), crc32(data)]
                write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
            index.append({"key": record.key, "members": members, "meta": dict(record.meta)})

        yield put
        end = position + 2 * tarfile.BLOCKSIZE  # an archive ends with two empty blocks
        write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
    content = {
        "bytes": position,
        "count": len(index),
        "provenance": dict(provenance),
        "records": index,
        "sha256": digest.hexdigest(),
    }
    with atomic_file(sidecar) as file:
        file.write(_sealed(to_json(content)))


def read_sidecar(name: str, data: bytes, tar_size: int | None) -> dict[str, Any]:
    """A checked index.

    Args:
        name: of its file, for messages.
        data: what the file holds.
        tar_size: bytes of its tar, None = there is none.

    Raises:
        CorruptError: the index is damaged, or its tar is missing or of another size.
    """
    index, tar = parse_object(name, data), f"{name.removesuffix('.json')}.tar"
    body, seal, _ = data.rpartition(_SEAL)  # shards of before there were seals have none
    if seal and (index.pop("sidecar_sha256", None) is None or _sealed(body + b"}") != data):
        raise CorruptError(f"{name}: damaged: its checksum differs; delete it and its .tar")
    if (
        set(index) != _FIELDS
        or not isinstance(index["records"], list)
        or index["count"] != len(index["records"])
    ):
        raise CorruptError(f"{name}: damaged: not the index of a shard")
    if tar_size is None:
        raise CorruptError(f"{tar}: missing, its index {name} is there; delete that")
    if tar_size != index["bytes"]:
        raise CorruptError(
            f"{tar}: damaged: {tar_size} bytes, {index['bytes']} were written; "
            "delete it and its .json"
        )
    return index


def read_local_sidecar(path: Path) -> dict[str, Any]:
    """The checked index in a file."""
    tar = path.with_suffix(".tar")
    return read_sidecar(str(path), path.read_bytes(), tar.stat().st_size if tar.exists() else None)


def decode(name: str, data: NDArray[np.uint8]) -> Any:
    """The value of a member; arrays are writable views of `data`.

    Args:
        name: of the member, such as "audio.npy" or "json".
        data: (N,) its bytes.

    Raises:
        ValueError: these are not the bytes of such a member.
    """
    if not name.endswith(".npy"):
        return json.loads(str(data, "utf-8"))  # type: ignore[call-overload]
    start = 10 + int(data[8]) + 256 * int(data[9]) if len(data) > 10 else 0
    dtype, shape, size = _layout(data[:start].tobytes())
    if len(data) - start != size:
        raise ValueError(f"{name} holds {len(data) - start} bytes, {size} are announced")
    return np.ndarray(shape, dtype, data, start)


@lru_cache(4096)
def _layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """(type, shape, bytes) announced by an npy header; parsing one takes longer than a checksum."""
    file = io.BytesIO(header)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an npy member of another version than 1.0")
    shape, fortran, dtype = npy.read_array_header_1_0(file)
    if fortran or dtype.hasobject:
        raise ValueError("an npy member in Fortran order or of Python objects")
    return dtype, shape, int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def _check_key(key: str, seen: set[str], path: Path) -> None:
    if key in seen:
        raise DataError(key, "duplicate", f"stands in {path.name} already")
    if not key or "." in key:
        message = f"a key in {path.name} is empty or has a dot; mmembed.data.examples.portable_key"
        raise DataError(key, "bad_key", message + " makes one of any name")


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
        npy.write_array(buffer, np.asarray(value, order="C"), (1, 0), allow_pickle=False)
        return buffer.getvalue()
    return to_json(value)


def to_json(value: object) -> bytes:
    """Plain values as JSON, the same values always as the same bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def parse_object(name: str, data: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CorruptError: it is something else.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{name}: damaged: {error}") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{name}: damaged: not a JSON object")
    return value


def _sealed(body: bytes) -> bytes:
    """The bytes of a JSON object with their own checksum as its last entry."""
    return body[:-1] + _SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
