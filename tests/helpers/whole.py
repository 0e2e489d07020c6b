"""Compares every byte of an open set of shards with the checksums."""

from __future__ import annotations

import hashlib
import os

import pyarrow as pa

from mmembed.data.shards.index import SCHEMA, Shard, ShardIndex
from mmembed.data.shards.index_file import gather
from mmembed.data.shards.reader import ShardSet
from mmembed.errors import CorruptError


def check_whole(shards: ShardSet) -> None:
    """Raise a CorruptError that names the first file that differs."""
    files, index = shards._files, shards._index
    now = gather(shards._sidecars(files.sizes()), files.name)
    if now.shards != index.shards or _table(now) != _table(index):
        raise CorruptError(f"{files.name}/shard-000000.json: not what was here when it was opened")
    for shard in index.shards:
        if _sha256(shards, shard) != shard.sha256 and not (
            files.forget(shard.sha256) and _sha256(shards, shard) == shard.sha256
        ):
            raise CorruptError(f"{files.name}/{shard.name}: damaged (its SHA-256 differs)")


def _table(index: ShardIndex) -> pa.Table:
    return pa.table([index.column(name) for name in SCHEMA.names], schema=SCHEMA)


def _sha256(shards: ShardSet, shard: Shard) -> str:
    digest, position = hashlib.sha256(), 0
    file = shards._files.open_tar(shard.name, shard.size, shard.sha256)
    while block := os.pread(file.number, 1 << 20, position):
        digest.update(block)
        position += len(block)
    return digest.hexdigest()
