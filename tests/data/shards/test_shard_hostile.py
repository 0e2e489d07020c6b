"""Shards made to harm: any value in any field of an index, and what members claim to hold."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.whole import check_whole
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy

import mmembed.data.shards.index
import mmembed.data.shards.index_file
from mmembed.commands.cli import run_program
from mmembed.data.shards.format import decode
from mmembed.data.shards.index import SCHEMA, column_checksum
from mmembed.data.shards.layout import (
    Record,
    ShardSet,
    index_shards,
    is_committed,
    shard_path,
    write_shard,
)
from mmembed.errors import CorruptError, DataError
from mmembed.io.checksum import crc32

META = {"lengths": {"audio": 3}, "split": "train", "frames": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two records in one shard."""
    return write(tmp_path_factory.mktemp("hostile"))


def write(folder: Path) -> Path:
    records = [
        Record(f"clip-{n}", {"values.npy": np.full((3, 2), n), "json": {"n": n}}, META)
        for n in range(2)
    ]
    write_shard(shard_path(folder, 0), records, {"failed": []})
    return folder


@pytest.fixture(scope="module")
def index(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "shard-000000.json").read_bytes())
    del held["sidecar_sha256"]
    return held


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within another, itself included."""
    yield path
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[name], (*path, name))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def put(folder: Path, index: Any) -> None:
    """As a forger writes it: with a checksum of its own."""
    body = json.dumps(index).encode()
    seal = hashlib.sha256(body).hexdigest()
    if isinstance(index, dict) and index:
        body = body[:-1] + f',"sidecar_sha256":"{seal}"'.encode() + b"}\n"
    (folder / "shard-000000.json").write_bytes(body)


def read_all(folder: Path) -> None:
    shards = ShardSet(folder)
    for row in range(len(shards)):
        shards.read(row)
    assert len(shards.numbers("lengths.audio")) == len(shards.texts("split")) == len(shards.keys)
    check_whole(shards)


ODD = [
    -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, 1e400, float("nan"), float("-inf"), True,
    None, "", "text", "\ud800", "a.b", [], [0], [0, 1, 2], [[0, 1, 2]], {}, {"a": 1},
    {"values.npy": [0, 2**63, 1]},
]  # fmt: skip


def test_any_value_in_any_field_is_one_line(folder: Path, index: dict[str, Any]) -> None:
    refused = 0
    for path in leaves(index):
        for new in ODD:
            try:
                put(folder, changed(index, path, new))
                is_committed(shard_path(folder, 0))
                read_all(folder)
            except (CorruptError, DataError) as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 1000
                assert "shard-000000" in str(error) or "stands twice" in str(error)
            except ValueError as error:  # of json itself: the number has too many digits to write
                assert "digits" in str(error)
    assert refused > 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_drawn_values(folder: Path, index: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(leaves(index))))
    put(folder, changed(index, path, data.draw(JSON)))
    try:
        read_all(folder)
    except (CorruptError, DataError) as error:
        assert "shard-000000" in str(error) or "stands twice" in str(error)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ([512, 2**63, 0], "lies at"),
        ([-512, 176, 0], "lies at"),
        ([512, 10_241, 0], "lies at"),
        ([10_000, 241, 0], "lies at"),
        ([512.0, 176, 0], "lies at"),
        ([512, 176, 2**32], "lies at"),
        ([512, 176], "lies at"),
        ([3500, 176, 0], "a member lies within another"),
    ],
)
def test_places_beyond_the_file(
    folder: Path, index: dict[str, Any], place: list[Any], message: str
) -> None:
    put(folder, changed(index, ("records", 0, "members", "values.npy"), place))
    with pytest.raises(CorruptError, match=rf"shard-000000\.json: damaged: .*{message}"):
        ShardSet(folder)


def header(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An npy member with any header."""
    data = text.encode() + b"\n"
    whole = npy.magic(1, 0) + len(data).to_bytes(2, "little") + data + bytes(8)
    return np.frombuffer(whole, np.uint8)


@pytest.mark.parametrize(
    "text",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 2), }",
        "{'descr': '|S0', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (2,), }",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + ")" * 3000 + "}",
        "{" * 5000,
        "",
    ],
)
def test_npy_headers_that_lie(text: str) -> None:
    with pytest.raises(ValueError):
        decode("a.npy", header(text))


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "1e400", '"\\ud800"', '["\\uDC00a"]'])
def test_json_members_that_nobody_writes(text: str) -> None:
    with pytest.raises(ValueError):
        decode("json", np.frombuffer(text.encode(), np.uint8))


def test_json_members_of_any_character() -> None:
    value = ["\U0001f600", "\u00fc", 1e300, -0.5]
    assert decode("json", np.frombuffer(json.dumps(value).encode(), np.uint8)) == value


def test_json_members_that_are_nested_too_deep() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        decode("json", np.frombuffer(b"[" * 200_000, np.uint8))


# ---- index.arrow -------------------------------------------------------------------------------


def forge(folder: Path, change: Callable[[pa.RecordBatch], pa.RecordBatch]) -> None:
    """Rewrite index.arrow with other columns and checksums that fit them."""
    path = folder / "index.arrow"
    with pa.ipc.open_file(path.read_bytes()) as reader:
        held, seal = reader.get_batch_with_custom_metadata(0)
        schema = reader.schema
    rows = change(held)
    about = json.loads(seal["about"])
    # As a reader sees the buffers.
    seen = pa.ipc.read_record_batch(rows.serialize(), rows.schema)
    about["checksums"] = {name: column_checksum(seen.column(name)) for name in SCHEMA.names}
    sealed = json.dumps(about).encode()
    with pa.ipc.new_file(path, schema) as writer:
        metadata = {"about": sealed, "crc32": str(crc32(sealed))}
        writer.write_batch(rows, custom_metadata=metadata)


def with_buffers(column: pa.Array, number: int, data: bytes) -> pa.Array:
    """A column one of whose buffers is another; nested ones keep their children."""
    buffers = column.buffers()[: column.type.num_buffers]
    buffers[number] = pa.py_buffer(data)
    nested = pa.types.is_list(column.type)
    return pa.Array.from_buffers(
        column.type, len(column), buffers, children=[column.values] if nested else None
    )


def offsets(*values: int) -> bytes:
    return np.array(values, np.int32).tobytes()


def members(column: pa.Array, field: str, values: list[int]) -> pa.Array:
    inner = column.values
    parts = [inner.field(n) for n in range(4)]
    number = ["name", "offset", "size", "crc32"].index(field)
    parts[number] = pa.array(values, parts[number].type)
    struct = pa.StructArray.from_arrays(parts, fields=list(inner.type))
    return pa.ListArray.from_arrays(column.offsets, struct)


FORGED: list[tuple[str, Callable[[pa.Array], pa.Array]]] = [
    ("key", lambda c: with_buffers(c, 1, offsets(0, 2**30, 12))),
    ("key", lambda c: with_buffers(c, 1, offsets(0, -5, 12))),
    ("key", lambda c: with_buffers(c, 1, offsets(9, 2, 12))),
    ("key", lambda c: with_buffers(c, 2, b"\xff" * 12)),
    ("key", lambda c: pa.array([None, "a"], pa.string())),
    ("meta", lambda c: with_buffers(c, 1, offsets(0, 2**30, 12))),
    ("meta", lambda c: pa.array(["[1]", "{}"])),
    ("meta", lambda c: pa.array(["{", "["])),
    ("meta", lambda c: pa.array(["[" * 100_000, "{}"])),
    ("members", lambda c: with_buffers(c, 1, offsets(0, 2**30, 4))),
    ("members", lambda c: with_buffers(c, 1, offsets(0, -7, 4))),
    ("members", lambda c: members(c, "offset", [2**62, 0, 0, 0])),
    ("members", lambda c: members(c, "offset", [-1, 0, 0, 0])),
    ("members", lambda c: members(c, "size", [2**62, 0, 0, 0])),
    ("members", lambda c: members(c, "size", [-1, 0, 0, 0])),
    ("lengths.audio", lambda c: pa.array([-1, 3])),
    ("lengths.audio", lambda c: pa.array([None, 3], pa.int64())),
    ("split", lambda c: with_buffers(c, 1, offsets(0, 2**30, 10))),
]


def test_columns_of_a_forged_index(tmp_path: Path) -> None:
    """In a process of its own: one that trusts them dies of them."""
    for number, (name, change) in enumerate(FORGED):
        write(tmp_path / str(number))
        index_shards(tmp_path / str(number))

        def forged(rows: pa.RecordBatch, name: str = name, change: Any = change) -> pa.RecordBatch:
            columns = [
                change(rows.column(n)) if n == name else rows.column(n) for n in rows.schema.names
            ]
            return pa.RecordBatch.from_arrays(columns, schema=rows.schema)

        forge(tmp_path / str(number), forged)
    done = read_apart(*(tmp_path / str(number) for number in range(len(FORGED))))
    assert done.returncode == 0, done.stderr
    for number, line in enumerate(done.stdout.splitlines()):
        assert line.startswith(f"5 error: {tmp_path / str(number)}/index.arrow: damaged"), line


@pytest.mark.parametrize("count", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_flipped_bytes_of_a_forged_index(tmp_path: Path, count: int) -> None:
    """Checksums fit, as whoever flips them sees to; a reader says so or reads something."""
    write(tmp_path)
    index_shards(tmp_path)
    assert read_apart(tmp_path, flips=count).returncode == 0


def test_packed_buffers_are_passed_over(folder: Path, index: dict[str, Any]) -> None:
    """A file of a kilobyte may unpack to any size."""
    put(folder, index)
    index_shards(folder)
    path = folder / "index.arrow"
    with pa.ipc.open_file(path.read_bytes()) as reader:
        rows, seal = reader.get_batch_with_custom_metadata(0)
        how = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(path, reader.schema, options=how) as writer:
            writer.write_batch(rows, custom_metadata=seal)
    assert ShardSet(folder)._index._batches[0].checksums is None
    read_all(folder)


READ = """
import sys, resource
sys.path[:0] = sys.argv[1:3]
from test_shard_hostile import read_apart_here
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
read_apart_here(int(sys.argv[3]), sys.argv[4:])
"""


def read_apart(*folders: Path, flips: int = 0) -> subprocess.CompletedProcess[str]:
    """Read folders in another process: a line with the exit code and what was said of each."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", READ, str(here), str(here.parent), str(flips)]
    command += map(str, folders)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def read_apart_here(flips: int, folders: list[str]) -> None:
    if flips:
        mmembed.data.shards.index.column_checksum = lambda column: AnyNumber()  # type: ignore[assignment]
        mmembed.data.shards.index_file.crc32 = lambda *_: AnyNumber()  # type: ignore[assignment]
        path = Path(folders[0]) / "index.arrow"
        whole, draw = path.read_bytes(), np.random.default_rng(0)
        for _ in range(flips):
            damaged = bytearray(whole)
            for place in draw.integers(0, len(whole), draw.integers(1, 4)):
                damaged[place] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.integers(256)])
            path.write_bytes(damaged)
            with suppress(CorruptError, DataError):
                read_all(path.parent)
        return
    for folder in folders:
        said = io.StringIO()
        with redirect_stderr(said):
            code = run_program(lambda _, folder=folder: read_all(Path(folder)), [])  # type: ignore[misc]
        print(code, said.getvalue().strip())


class AnyNumber:
    """A checksum that fits."""

    def __eq__(self, other: object) -> bool:
        return True

    def __str__(self) -> str:
        return Same("")


class Same(str):
    def encode(self, *_: str) -> Any:  # type: ignore[override]
        return AnyNumber()
