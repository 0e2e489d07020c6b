"""Copies of vectors made to harm, with checksums that fit: passed over, and made anew."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.prepared import described, embedding, write_embeddings

from mmembed.embeddings.read import ABOUT, COPY, Embeddings, load_embeddings, map_embeddings
from mmembed.embeddings.search import EmbeddingSearch
from mmembed.io.checksum import crc32

LABELS = {"emotions": [1.0, 0, 0, 0, 0, 0], "present": ["joy", "hope"], "scores": {"v": 0.25}}

Change = Callable[[pa.Table], pa.Table]


def write(folder: Path) -> Path:
    records = [embedding(0), described(1, labels=LABELS), described(2, labels=LABELS)]
    return write_embeddings(folder, records, ["audio"])


def put(folder: Path, data: bytes) -> None:
    """A copy, and a description that fits it."""
    (folder / COPY).write_bytes(data)
    about = json.loads((folder / ABOUT).read_bytes())
    (folder / ABOUT).write_text(json.dumps({**about, "bytes": len(data), "crc32": crc32(data)}))


def forge(folder: Path, change: Change, **options: Any) -> None:
    with pa.ipc.open_file((folder / COPY).read_bytes()) as reader:
        table = change(reader.read_all())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    put(folder, sink.getvalue().to_pybytes())


def column(name: str, change: Callable[[pa.Array], pa.Array]) -> Change:
    def changed(table: pa.Table) -> pa.Table:
        old = table.column(name).chunk(0)
        return table.set_column(table.column_names.index(name), name, change(old))

    return changed


def ends(*values: int) -> Callable[[pa.Array], pa.Array]:
    def changed(old: pa.Array) -> pa.Array:
        buffers = old.buffers()[: old.type.num_buffers]
        buffers[1] = pa.py_buffer(np.array(values, np.int32).tobytes())
        children = [old.values] if pa.types.is_list(old.type) else None
        return pa.Array.from_buffers(old.type, len(old), buffers, children=children)

    return changed


def vectors(values: pa.Array, width: int = 8) -> Callable[[pa.Array], pa.Array]:
    return lambda _: pa.FixedSizeListArray.from_arrays(values, width)


ONES = np.ones(24)
FORGED: list[tuple[Change, dict[str, Any]]] = [
    (column("key", ends(0, 2**30, -(2**30), 18)), {}),
    (column("key", ends(0, 12, 6, 18)), {}),
    (column("key", lambda old: old.take([1, 0, 2])), {}),
    (column("split", ends(0, 2**30, 0, 12)), {}),
    (column("present", ends(0, 2**30, 2**30, 4)), {}),
    (column("present", ends(0, 0, -9, 4)), {}),
    (column("emotions", ends(0, 2**30, 2**30, 12)), {}),
    (column("category", lambda old: pa.array([b"\xff"] * 3).view(pa.string())), {}),
    (column("sentiment", lambda old: pa.array(["a"] * 3)), {}),
    (column("pooled", vectors(pa.array(ONES))), {}),
    (column("pooled", vectors(pa.array([None, *ONES[1:]], pa.float32()))), {}),
    (column("pooled", lambda old: pa.array([None, [1.0] * 8, [1.0] * 8], old.type)), {}),
    (column("pooled", lambda old: old.cast(pa.list_(pa.float32()))), {}),
    (lambda table: table.slice(0, 2), {}),
    (lambda table: pa.concat_tables([table, table]), {}),
    (lambda table: table.drop_columns(["pooled"]), {}),
    (lambda table: table.drop_columns(["speaker"]), {}),
    (lambda table: table, {"compression": "zstd"}),
]


def apart(*arguments: object) -> subprocess.CompletedProcess[str]:
    """This file, run as a program: one that trusts its input dies of it."""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_forged_columns(tmp_path: Path) -> None:
    for number, (change, options) in enumerate(FORGED):
        folder = write(tmp_path / str(number))
        map_embeddings(folder)
        forge(folder, change, **options)
    done = apart("read", *(tmp_path / str(number) for number in range(len(FORGED))))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["same"] * len(FORGED)


@pytest.mark.parametrize("count", [200, pytest.param(5000, marks=pytest.mark.long)])
def test_flipped_bytes(tmp_path: Path, count: int) -> None:
    map_embeddings(write(tmp_path))
    done = apart("flip", count, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def use(folder: Path) -> Embeddings:
    """All that search does with a copy."""
    found = EmbeddingSearch.open(folder)
    found.embeddings.table.to_pylist()
    found.select("joy"), found.select(split="test"), found.row_of("clip-1")
    found.nearest_to(0, 2)
    return found.embeddings


def main(action: str, *arguments: str) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.fsync = lambda _: None  # each copy is made anew
    if action == "read":
        for folder in map(Path, arguments):
            found, expected = use(folder), load_embeddings(folder)
            same = found.table.equals(expected.table)
            print("same" if same and (found.vectors == expected.vectors).all() else "other")
        return
    folder, draw = Path(arguments[1]), np.random.default_rng(0)
    whole = (folder / COPY).read_bytes()
    for _ in range(int(arguments[0])):
        damaged = bytearray(whole)
        for place in draw.integers(0, len(whole), draw.integers(1, 4)):
            damaged[place] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.integers(256)])
        put(folder, bytes(damaged))
        try:
            use(folder)
        except Exception as error:
            assert "no clip has" in str(error) or "not finite" in str(error), error


if __name__ == "__main__":
    main(*sys.argv[1:])
