"""What a user may want to look into: manifests and folders of shards, damaged ones too.

Shards are read here one index at a time and member by member, straight from the format that
`mmembed.data.shards.format` documents: who looks for damage has to get past the first, where a
reader rightly stops, and memory stays flat over any number of shards.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np

from mmembed.data.shards.format import decode
from mmembed.data.shards.reader import parse_manifest
from mmembed.errors import CorruptError, UsageError
from mmembed.io.json import parse_json

MANIFEST_SUFFIXES: Final = (".jsonl", ".parquet")
MADE: Final = "manifest.json"  # in a folder of shards: what they have in common
ROWS: Final = "manifest.jsonl"  # beside the folder of shards that was made of it
SHARDS: Final = "shards"
_SEAL: Final = b',"sidecar_sha256":"'  # last entry of an index: SHA-256 of what it is without it

Json: TypeAlias = Mapping[str, Any]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


@dataclass(frozen=True)
class Location:
    """One manifest, or one folder of shards.

    Attributes:
        path: the file, or the folder.
        rows: the manifest that the shards were made of, where it lies beside them.
    """

    path: Path
    rows: Path | None = None

    @property
    def is_manifest(self) -> bool:
        return self.path.suffix.lower() in MANIFEST_SUFFIXES and self.path.is_file()

    @property
    def sidecars(self) -> list[Path]:
        """The indices of its shards, in order."""
        return sorted(self.path.glob("shard-*.json"))

    @property
    def made(self) -> Json:
        """What `manifest.json` says of all shards, {} where it is missing or no JSON object."""
        try:
            return parse_manifest(str(self.path / MADE), (self.path / MADE).read_bytes())
        except (OSError, CorruptError):
            return {}


def find_places(path: Path) -> list[Location]:
    """What `path` names: a manifest, a folder of shards, or a folder that holds some of those.

    Raises:
        UsageError: it is nothing of the kind.
    """
    wanted = f"name a manifest ({', '.join(MANIFEST_SUFFIXES)}), a prepared folder or embeddings"
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return [Location(path)]
    if not path.is_dir():
        what = "neither a manifest nor a folder" if path.exists() else "no such file or folder"
        raise UsageError(f"{path}: {what}; {wanted}")
    if _holds_shards(path):
        return [_shards(path)]
    found = [_shards(inner) for inner in sorted(path.iterdir()) if _holds_shards(inner)]
    if not found and (path / ROWS).is_file():
        return [Location(path / ROWS)]
    if not found:
        raise UsageError(f"{path}: holds no shards; {wanted}")
    return found


@dataclass(frozen=True)
class Entry:
    """A record as the index of its shard has it.

    Attributes:
        key: of the record.
        members: name -> (offset, bytes, CRC-32).
        meta: what planning needs.
    """

    key: str
    members: Mapping[str, tuple[int, int, int]]
    meta: Json


@dataclass(frozen=True)
class Index:
    """The sidecar of a shard.

    Attributes:
        tar: the shard.
        size: bytes of the tar as written.
        sha256: of the tar as written.
        provenance: how it was made.
        entries: its records, in order.
    """

    tar: Path
    size: int
    sha256: str
    provenance: Json
    entries: tuple[Entry, ...]

    @property
    def failed(self) -> list[Json]:
        """What was left out of this shard, each with a reason."""
        listed = self.provenance.get("failed")
        return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def read_index(sidecar: Path) -> Index:
    """The sidecar of a shard, whether its tar is there or not.

    Raises:
        CorruptError: it is damaged.
    """
    try:
        data = sidecar.read_bytes()
        held = parse_json(data)
        _check_seal(data, held)
        size, provenance = held["bytes"], dict(held["provenance"])
        entries = tuple(_entry(record, size) for record in held["records"])
        if held["count"] != len(entries):
            raise ValueError(f"it counts {held['count']} records and lists {len(entries)}")
        return Index(sidecar.with_suffix(".tar"), size, str(held["sha256"]), provenance, entries)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise CorruptError(f"{sidecar}: not the index of a shard ({what})") from None


def read_member(tar: BinaryIO, name: str, place: tuple[int, int, int]) -> Any:
    """An array (".npy") or a JSON value of an open shard.

    Raises:
        ValueError: the bytes there are not those written, or are of another kind.
    """
    offset, size, checksum = place
    try:
        data = os.pread(tar.fileno(), size, offset)
    except (OverflowError, MemoryError):
        raise ValueError("its index places it beyond any file") from None
    if zlib.crc32(data) != checksum:
        raise ValueError("its checksum differs")
    if not name.endswith(".npy"):
        return parse_json(data)
    return decode(name, np.frombuffer(bytearray(data), np.uint8))


def _check_seal(data: bytes, held: Json) -> None:
    """Shards of before there were seals have none."""
    body, _, seal = data.rpartition(_SEAL)
    if "sidecar_sha256" in held and seal != f'{sha256(body + b"}").hexdigest()}"}}\n'.encode():
        raise ValueError("its checksum differs")


def _entry(record: Json, size: int) -> Entry:
    members = {}
    for name, (offset, length, checksum) in record["members"].items():
        if not 0 <= offset <= offset + length <= size:
            raise ValueError(f"{record['key']}.{name} lies outside its tar")
        members[str(name)] = (int(offset), int(length), int(checksum))
    return Entry(str(record["key"]), members, dict(record["meta"]))


def _holds_shards(folder: Path) -> bool:
    patterns = ("shard-*.json", "shard-*.tar", ".shard-*.tmp")
    return folder.is_dir() and any(any(folder.glob(pattern)) for pattern in patterns)


def _shards(folder: Path) -> Location:
    rows = folder.parent / ROWS
    return Location(folder, rows if folder.name == SHARDS and rows.is_file() else None)
