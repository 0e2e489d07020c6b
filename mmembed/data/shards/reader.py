"""Reading the shards of a folder, here or behind a URL, in any order."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmembed.data.shards.format import FOLDER_INDEX, Member, Record, read_member
from mmembed.data.shards.index import NUMBERS, TEXTS, Shard, ShardIndex
from mmembed.data.shards.index_file import fingerprint, gather, map_index, shard_names
from mmembed.data.shards.metadata import MANIFEST, parse_manifest
from mmembed.data.shards.sidecar import read_sidecar
from mmembed.errors import CorruptError, DataError
from mmembed.io.cache import Descriptor
from mmembed.io.remote import RemoteFolder, as_url

_OPEN_FILES: Final = 64  # kept open by a set


class LocalFolder:
    """The files of a folder on this machine; a few tars stay open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)
        self._tar = lru_cache(_OPEN_FILES)(lambda name: Descriptor(path / name))

    def sizes(self) -> dict[str, int]:
        """Names of the files and their bytes; {} where there is no such folder."""
        try:
            with os.scandir(self._path) as entries:
                return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of small files, in their order."""
        return ((self._path / name).read_bytes() for name in names)

    def open_index(self, name: str, size: int, state: str) -> Descriptor:
        """The index of this state of the folder."""
        return Descriptor(self._path / name)

    def open_tar(self, name: str, size: int, sha256: str) -> Descriptor:
        """A shard's tar."""
        return self._tar(name)

    def forget(self, sha256: str) -> bool:
        """There is no other copy of a shard."""
        return False


class ShardSet:
    """The committed shards of a folder as one sequence of records, read in any order.

    It may be used by many threads, forked, and sent to other processes, which open the folder
    again. A few tars stay open; those behind a URL are opened in the cache for each record, so that
    it can let go of them at any time.

    Args:
        folder: on this machine, or a URL (see `mmembed.io.remote`), whose shards are fetched
            into a cache when first read.

    Attributes:
        name: what errors call it: the folder, of a URL without its secrets.
        manifest: what `finish` wrote, {} without.

    Raises:
        DataError: the folder holds no shard, or two records share a key.
        CorruptError: an index is damaged, or its tar is missing or of another size.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder
        url = as_url(folder)
        self._files: LocalFolder | RemoteFolder = (
            LocalFolder(Path(folder)) if url is None else RemoteFolder(url)
        )
        self.name = self._files.name
        sizes = self._files.sizes()
        if not shard_names(sizes):
            raise DataError(self.name, "missing", "holds no shards")
        self._state = fingerprint(sizes)
        index = self._mapped(sizes)
        self._index = gather(self._sidecars(sizes), self.name) if index is None else index
        self.manifest: dict[str, Any] = {}
        if MANIFEST in sizes:
            (content,) = self._files.read([MANIFEST])
            self.manifest = parse_manifest(f"{self.name}/{MANIFEST}", content)

    def __len__(self) -> int:
        return len(self._index)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_again, (self.folder, self._state)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of all records, in order."""
        return tuple(self._index.column("key").to_pylist())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names and checksums of the shards: of what they hold."""
        lines = [f"{shard.name} {shard.sha256}\n" for shard in self._index.shards]
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def key(self, index: int) -> str:
        """The key of one record."""
        return self._index.key(index)

    def meta(self, index: int) -> Mapping[str, Any]:
        """What the index holds of a record beside its members."""
        return self._index.meta(index)

    def numbers(self, name: str) -> NDArray[np.int64]:
        """(N,) an entry of all records' meta: "lengths.audio", "lengths.video", "lengths.text" or
        "frames"; 0 where a record has no such number.

        Raises:
            KeyError: another name.
        """
        if name not in NUMBERS:
            raise KeyError(name)
        numbers: NDArray[np.int64] = self._index.column(name).to_numpy()
        return numbers

    def texts(self, name: str) -> pa.ChunkedArray:
        """(N,) the records' "key", or an entry of their meta: "split", "speaker", "transcript";
        null where a record has no such text.

        Raises:
            KeyError: another name.
        """
        if name not in ("key", *TEXTS):
            raise KeyError(name)
        return self._index.column(name)

    def member_names(self, index: int) -> frozenset[str]:
        """What one record has to read."""
        return frozenset(member.name for member in self._index.members(index))

    def read(self, index: int, members: Sequence[str] | None = None) -> Record:
        """Read one record; its arrays are its own and may be written to.

        Args:
            index: its number, counted from 0.
            members: the names to read, of those the record has; None = all.

        Raises:
            CorruptError: the bytes there are not those written.
            IndexError: there is no such record.
        """
        stored = self._index.members(index)
        if members is not None:
            stored = [member for member in stored if member.name in members]
        shard, key = self._index.shard_of(index), self._index.key(index)
        try:
            read = self._read(shard, key, stored)
        except CorruptError:
            if not self._files.forget(shard.sha256):
                raise
            read = self._read(shard, key, stored)
        return Record(key, read, self._index.meta(index))

    def _read(self, shard: Shard, key: str, members: Sequence[Member]) -> dict[str, Any]:
        try:
            file = self._files.open_tar(shard.name, shard.size, shard.sha256)
            return {member.name: read_member(file.number, member) for member in members}
        except (ValueError, FileNotFoundError) as error:
            where = f"{self.name}/{shard.name}"
            raise CorruptError(f"{where}: {key} is damaged: {error}") from None

    def _mapped(self, sizes: Mapping[str, int]) -> ShardIndex | None:
        """The index of the whole folder, where there is one and it fits the shards."""
        if FOLDER_INDEX not in sizes:
            return None
        file = self._files.open_index(FOLDER_INDEX, sizes[FOLDER_INDEX], self._state)
        return map_index(file.number, f"{self.name}/{FOLDER_INDEX}", sizes)

    def _sidecars(self, sizes: Mapping[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(name of the tar, checked index) of each shard."""
        names = shard_names(sizes)
        contents = self._files.read([sidecar for sidecar, _ in names])
        for (sidecar, tar), content in zip(names, contents, strict=True):
            where = f"{self.name}/{sidecar}"
            yield tar, read_sidecar(where, content, sizes.get(tar))


def _open_again(folder: Path | str, state: str) -> ShardSet:
    """A set in another process.

    Raises:
        CorruptError: the folder holds other shards now.
    """
    shards = ShardSet(folder)
    if shards._state != state:
        raise CorruptError(f"{folder}: its shards changed while they were in use")
    return shards
