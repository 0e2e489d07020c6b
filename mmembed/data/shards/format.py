"""One shard: a plain webdataset tar with an index beside it.

`shard-000000.tar` holds the members of its records, `KEY.audio.flac`, `KEY.json`, ..., and is read
by anyone's webdataset. `shard-000000.json` holds what random access and planning need:

    {"bytes": 10240, "count": 2, "provenance": {...},
     "records": [{"key": ..., "members": {"json": [offset, size, crc32], ...}, "meta": {...}}, ...],
     "sha256": of the tar, "sidecar_sha256": of this JSON without this entry}

The index is written last and is the commit: a tar without one does not exist for a reader.
The format of the tars: https://github.com/webdataset/webdataset
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import soundfile
from numpy.lib import format as npy
from numpy.typing import NDArray

from mmembed.data.shards import differences
from mmembed.errors import DataError
from mmembed.features.audio import SAMPLE_RATE
from mmembed.io.atomic import atomic_file, sync_folder
from mmembed.io.checksum import crc32

FOLDER_INDEX: Final = "index.arrow"
"""All indices of a folder in one file, see `mmembed.data.shards.index_file`."""

_KINDS: Final = "biufcSU"  # of arrays: numbers and text, each value of at least a byte
_SURROGATE: Final = re.compile(r"\\u[dD]")  # how JSON of ASCII begins half a character
MOST_SAMPLES: Final = 3_600 * SAMPLE_RATE  # of one member; an hour of silence has 180 kB as FLAC
SEAL: Final = b',"sidecar_sha256":"'


class Member(NamedTuple):
    """Where the bytes of a member stand in the tar, and their checksum."""

    name: str
    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class Record:
    """What a shard holds of one item.

    Attributes:
        key: unique, without dots.
        members: "NAME.npy" -> array, "NAME.flac" -> (samples,) int16 at 16 kHz, "json" or
            "NAME.json" -> mapping of plain JSON values.
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
            if record.key in seen:
                raise DataError(record.key, "duplicate", f"stands in {path.name} already")
            if not record.key or "." in record.key:
                message = f"a key in {path.name} is empty or has a dot; portable_key makes one of"
                raise DataError(record.key, "bad_key", f"{message} any name")
            seen.add(record.key)
            members: dict[str, list[int]] = {}
            for name, value in record.members.items():
                data = _encode(name, value)
                info = tarfile.TarInfo(f"{record.key}.{name}")  # of no time, place or owner
                info.size = len(data)
                write(info.tobuf(tarfile.PAX_FORMAT))  # USTAR, extended for long names alone
                members[name] = [position, len(data), crc32(data)]
                write(data + bytes(-len(data) % tarfile.BLOCKSIZE))
            index.append({"key": record.key, "members": members, "meta": dict(record.meta)})

        yield put
        end = position + 2 * tarfile.BLOCKSIZE  # an archive ends with two empty blocks
        write(bytes(2 * tarfile.BLOCKSIZE + -end % tarfile.RECORDSIZE))
        for old in (path.with_name(FOLDER_INDEX), sidecar):
            if old.exists():  # an old index must never stand beside a new tar
                old.unlink(missing_ok=True)
                sync_folder(path.parent)
    content = {
        "bytes": position,
        "count": len(index),
        "provenance": dict(provenance),
        "records": index,
        "sha256": digest.hexdigest(),
    }
    with atomic_file(sidecar) as file:
        file.write(sealed(to_json(content)))


def members_of(record: Mapping[str, Any]) -> list[Member]:
    """The members of a record of a checked index."""
    return [Member(name, *numbers) for name, numbers in record["members"].items()]


def read_member(file: int, member: Member) -> Any:
    """The value of a member of an open tar; its array is its own and may be written to.

    Args:
        file: descriptor of the tar.
        member: as the index has it.

    Raises:
        ValueError: the bytes there are not those written.
    """
    name, offset, size, checksum = member
    try:
        data = np.empty(size, np.uint8)
    except MemoryError:
        raise ValueError(f"{name} has {size} bytes in the index") from None
    if os.preadv(file, [data.data], offset) != size or crc32(data.data) != checksum:
        raise ValueError(f"{name} has another checksum")
    return decode(name, data)


def decode(name: str, data: NDArray[np.uint8]) -> Any:
    """The value of a member; arrays are writable views of `data`.

    Args:
        name: of the member, such as "audio.flac" or "json".
        data: (N,) its bytes.

    Raises:
        ValueError: these are not the bytes of such a member.
    """
    if name.endswith(".flac"):
        return _decode_flac(name, data)
    if name.endswith(differences.SUFFIX):
        return differences.decode_pictures(name, data)
    if not name.endswith(".npy"):
        text = str(data, "utf-8")  # type: ignore[call-overload]
        try:
            value = json.loads(text, parse_constant=no_number, parse_float=_finite)
        except RecursionError as error:
            raise ValueError(f"{name} is nested too deep") from error
        if _SURROGATE.search(text):  # half a character is no text
            json.dumps(value, ensure_ascii=False).encode()  # UnicodeEncodeError is a ValueError
        return value
    start = 10 + int(data[8]) + 256 * int(data[9]) if len(data) > 10 else 0
    dtype, shape, size = _layout(data[:start].tobytes())
    if len(data) - start != size:
        raise ValueError(f"{name} holds {len(data) - start} bytes, {size} are announced")
    return np.ndarray(shape, dtype, data, start)


@lru_cache(4096)
def _layout(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    """(type, shape, bytes) announced by an npy header, as `numpy.lib.format` reads it.

    Kept by its bytes: `numpy.lib.format.read_array`, which parses the header of every array anew,
    takes 170 us for 160 kB, this 6 us.
    """
    file = io.BytesIO(header)
    if npy.read_magic(file) != (1, 0):
        raise ValueError("an npy member of another version than 1.0")
    try:
        shape, fortran, dtype = npy.read_array_header_1_0(file)
    except Exception as error:  # of a tokeniser and a parser of Python, which raise anything
        raise ValueError(f"an npy member whose header is none: {error!r}") from None
    if fortran or dtype.kind not in _KINDS or not dtype.itemsize:
        raise ValueError(f"an npy member in Fortran order, or of {dtype}")
    if any(type(length) is not int or not 0 <= length < 2**63 for length in shape):
        raise ValueError(f"an npy member of shape {repr(shape)[:80]}")
    return dtype, shape, math.prod(shape) * dtype.itemsize


def _decode_flac(name: str, data: NDArray[np.uint8]) -> NDArray[np.int16]:
    """(samples,) of 16-bit FLAC, mono, at 16 kHz.

    Its first block is looked at before libsndfile is given it: that would take other formats as
    well, and as much memory as is announced (RFC 9639, 8.2).
    """
    head = data[:26].tobytes()
    if len(head) < 26 or head[:4] != b"fLaC" or head[4] & 0x7F or head[5:8] != b"\0\0\x22":
        raise ValueError(f"{name} is no FLAC")
    numbers = int.from_bytes(
        head[18:26]
    )  # 20 bits of rate, 3 of channels, 5 of depth, 36 of samples
    rate, channels, bits = numbers >> 44, (numbers >> 41 & 7) + 1, (numbers >> 36 & 31) + 1
    if (rate, channels, bits) != (SAMPLE_RATE, 1, 16):
        raise ValueError(f"{name} has {channels} channels of {bits} bits at {rate} Hz")
    count = numbers & (1 << 36) - 1
    if not 0 < count <= MOST_SAMPLES:
        raise ValueError(f"{name} announces {count} samples, from 1 to {MOST_SAMPLES} are allowed")
    try:
        with soundfile.SoundFile(io.BytesIO(data.data)) as file:
            samples: NDArray[np.int16] = file.read(count, "int16")
    except soundfile.SoundFileError:
        raise ValueError(f"{name} cannot be decoded") from None
    if samples.shape != (count,):
        raise ValueError(f"{name} has {len(samples)} of {count} samples")
    return samples


def _encode(name: str, value: object) -> bytes:
    if name.endswith(".flac"):
        samples = np.asarray(value)
        if samples.dtype != np.int16 or samples.ndim != 1 or not 0 < len(samples) <= MOST_SAMPLES:
            raise ValueError(f"{name} is {samples.dtype} {samples.shape}")
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, "PCM_16", format="FLAC")
        return file.getvalue()
    if name.endswith(differences.SUFFIX):
        return differences.encode_pictures(name, np.asarray(value))
    if name.endswith(".npy"):
        buffer = io.BytesIO()
        npy.write_array(buffer, np.asarray(value, order="C"), (1, 0), allow_pickle=False)
        return buffer.getvalue()
    return to_json(value)


def to_json(value: object) -> bytes:
    """Plain values as JSON, the same values always as the same bytes."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def no_number(text: str) -> None:
    raise ValueError(f"holds {text}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        no_number(text)
    return value


def sealed(body: bytes) -> bytes:
    """The bytes of a JSON object with their own checksum as its last entry."""
    return body[:-1] + SEAL + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
