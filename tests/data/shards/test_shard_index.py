"""The index of a folder says what its shards say, and is passed over when it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.whole import check_whole

import mmembed.data.shards.index_file
from mmembed.data.shards.layout import Record, ShardSet, index_shards, shard_path, write_shard
from mmembed.errors import CorruptError, DataError


def record(number: int, **meta: object) -> Record:
    return Record(f"clip-{number:03d}", {"values.npy": np.full((3, 2), number)}, meta)


METAS: list[dict[str, object]] = [
    {"lengths": {"audio": 300, "text": 5}, "split": "train", "speaker": "a", "transcript": "hello"},
    {"lengths": {"audio": 0, "video": 75}, "split": None, "frames": 9, "odd": [1, {"x": None}]},
    {"lengths": "none", "split": 3, "transcript": "\u00fc"},
    {},
    {"lengths": {"audio": 12}, "split": "dev", "speaker": "b", "frames": 2.5},
]


@pytest.fixture(params=[1, 16_384], ids=["small batches", "one batch"])
def folder(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three shards, the second of them empty."""
    monkeypatch.setattr(mmembed.data.shards.index_file, "_BATCH", request.param)
    made = [record(number, **meta) for number, meta in enumerate(METAS)]
    for number, part in enumerate((made[:2], [], made[2:])):
        write_shard(shard_path(tmp_path, number), part, {})
    return tmp_path


def uses_the_index(shards: ShardSet) -> bool:
    return any(batch.checksums is not None for batch in shards._index._batches)


@pytest.mark.parametrize("indexed", [False, True])
def test_columns_and_rows(folder: Path, indexed: bool) -> None:
    if indexed:
        index_shards(folder)
    shards = ShardSet(folder)
    assert uses_the_index(shards) == indexed
    assert shards.numbers("lengths.audio").tolist() == [300, 0, 0, 0, 12]
    assert shards.numbers("lengths.video").tolist() == [0, 75, 0, 0, 0]
    assert shards.numbers("lengths.text").tolist() == [5, 0, 0, 0, 0]
    assert shards.numbers("frames").tolist() == [0, 9, 0, 0, 0]
    assert shards.numbers("frames").dtype == np.int64
    assert shards.texts("split").to_pylist() == ["train", None, None, None, "dev"]
    assert shards.texts("speaker").to_pylist() == ["a", None, None, None, "b"]
    assert shards.texts("transcript").to_pylist() == ["hello", None, "\u00fc", None, None]
    assert tuple(shards.texts("key").to_pylist()) == shards.keys
    for index, meta in enumerate(METAS):
        assert shards.meta(index) == meta
        assert shards.key(index) == shards.keys[index] == f"clip-{index:03d}"
        read = shards.read(index)
        assert (read.key, read.meta) == (shards.keys[index], meta)
        assert (read.members["values.npy"] == index).all()
    for outside in (-1, 5):
        with pytest.raises(IndexError):
            shards.read(outside)
    for name in ("age", "members", "split"):
        with pytest.raises(KeyError):
            shards.numbers(name)
    for name in ("age", "members", "frames"):
        with pytest.raises(KeyError):
            shards.texts(name)
    check_whole(shards)


def test_anyone_reads_the_index(folder: Path) -> None:
    index_shards(folder)
    with pa.memory_map(str(folder / "index.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table["key"].to_pylist() == [f"clip-{n:03d}" for n in range(5)]
    (member,) = table["members"][4].as_py()
    tar = shard_path(folder, 2).read_bytes()
    data = tar[member["offset"] : member["offset"] + member["size"]]
    assert data.startswith(b"\x93NUMPY")
    assert len(data) == 128 + 3 * 2 * 8


def test_same_shards_same_index(folder: Path) -> None:
    index_shards(folder)
    first = (folder / "index.arrow").read_bytes()
    index_shards(folder)
    assert (folder / "index.arrow").read_bytes() == first


def test_a_stale_index_is_passed_over(folder: Path) -> None:
    index_shards(folder)
    index = folder / "index.arrow"
    old = index.read_bytes()
    write_shard(shard_path(folder, 3), [record(9)], {})
    assert not index.exists()  # a writer takes it away
    index.write_bytes(old)
    shards = ShardSet(folder)
    assert not uses_the_index(shards)
    assert len(shards) == 6
    index_shards(folder)
    shard_path(folder, 3).with_suffix(".json").unlink()
    assert len(ShardSet(folder)) == 5
    index.write_bytes(b"")
    assert len(ShardSet(folder)) == 5


def test_damage_of_a_shard_is_told_in_spite_of_the_index(folder: Path) -> None:
    index_shards(folder)
    shard_path(folder, 2).write_bytes(b"short")
    with pytest.raises(CorruptError, match=r"shard-000002\.tar: damaged: 5 bytes"):
        ShardSet(folder)
    shard_path(folder, 2).unlink()
    with pytest.raises(CorruptError, match=r"shard-000002\.tar: missing"):
        ShardSet(folder)


def test_a_sidecar_changed_behind_the_index_is_found_by_verify(folder: Path) -> None:
    index_shards(folder)
    sidecar = shard_path(folder, 2).with_suffix(".json")
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"dev"', b'"abc"'))
    assert uses_the_index(ShardSet(folder))
    with pytest.raises(CorruptError, match=r"shard-000002\.json: damaged: its checksum"):
        check_whole(ShardSet(folder))


def test_duplicates_are_named_and_no_index_is_left(folder: Path) -> None:
    write_shard(shard_path(folder, 3), [record(8), record(1)], {})
    with pytest.raises(DataError, match=r"clip-001.*shard-000000\.tar and shard-000003\.tar"):
        index_shards(folder)
    assert not [path.name for path in folder.iterdir() if "index" in path.name]


def test_sidecars_of_before_there_were_seals_are_read(folder: Path) -> None:
    for sidecar in folder.glob("*.json"):
        body, _, _ = sidecar.read_bytes().rpartition(b',"sidecar_sha256"')
        sidecar.write_bytes(body + b"}\n")
    shards = ShardSet(folder)
    check_whole(shards)
    assert shards.meta(0) == METAS[0]
