"""Folders of shards: where the shards stand, what they have in common, and how they are read.

One shard is `format`, its own index `sidecar`, the indices of all shards as columns `index`, the
file of these `index_file`, what all shards have in common `metadata`; `reader` reads them, here or
behind a URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmembed.data.shards.format import FOLDER_INDEX, Record, shard_writer, to_json, write_shard
from mmembed.data.shards.index_file import write_index
from mmembed.data.shards.metadata import MANIFEST
from mmembed.data.shards.reader import LocalFolder, ShardSet
from mmembed.data.shards.sidecar import read_local_sidecar
from mmembed.errors import CorruptError
from mmembed.io.atomic import atomic_file, sync_folder

__all__ = [
    "Record",
    "ShardSet",
    "finish",
    "index_shards",
    "is_committed",
    "shard_path",
    "shard_sidecar",
    "shard_sidecars",
    "shard_writer",
    "uncommit",
    "write_shard",
]


def shard_path(folder: Path, number: int) -> Path:
    """Where the tar of a shard stands."""
    return folder / f"shard-{number:06d}.tar"


def shard_sidecar(tar: Path) -> dict[str, Any] | None:
    """The index of a shard without its records; None where the shard is not there or not whole."""
    try:
        sidecar = read_local_sidecar(tar.with_suffix(".json"))
    except (FileNotFoundError, CorruptError):
        return None
    del sidecar["records"]
    return sidecar


def is_committed(tar: Path) -> bool:
    """Whether the shard with this tar is there as a whole."""
    return shard_sidecar(tar) is not None


def uncommit(tar: Path) -> None:
    """Make a shard one that is not there; its tar stays until it is made again."""
    for path in (tar.with_name(FOLDER_INDEX), tar.with_suffix(".json")):
        path.unlink(missing_ok=True)
    sync_folder(tar.parent)


def shard_sidecars(folder: Path) -> list[dict[str, Any]]:
    """The indices of all committed shards of a folder, in their order, without their records.

    Raises:
        CorruptError: an index is damaged, or its tar is missing or of another size.
    """
    return [
        {name: value for name, value in sidecar.items() if name != "records"}
        for _, sidecar in _sidecars(folder)
    ]


def finish(folder: Path, **provenance: object) -> None:
    """Write `manifest.json`: what all shards of a folder have in common."""
    with atomic_file(folder / MANIFEST) as file:
        file.write(to_json(provenance) + b"\n")


def index_shards(folder: Path) -> None:
    """Write the index of a folder whose shards are all there, so that it opens at once.

    Raises:
        DataError: two records share a key.
        CorruptError: an index is damaged, or its tar is missing or of another size.
    """
    write_index(folder / FOLDER_INDEX, _sidecars(folder), LocalFolder(folder).sizes())


def _sidecars(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(folder.glob("shard-*.json")):
        yield path.with_suffix(".tar").name, read_local_sidecar(path)
