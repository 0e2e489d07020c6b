"""Shards: others can read them, damage is noticed, and a killed writer leaves nothing half done."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import webdataset
from helpers.whole import check_whole

from mmembed.data.shards.layout import (
    Record,
    ShardSet,
    finish,
    is_committed,
    shard_path,
    shard_sidecars,
    write_shard,
)
from mmembed.errors import CorruptError, DataError


def records(count: int = 5, first: int = 0) -> list[Record]:
    made = []
    for number in range(first, first + count):
        values = np.random.default_rng(number).standard_normal((3 + number, 4))
        members = {
            "values.npy": values.astype(np.float16),
            "json": {"number": number, "text": "\u00fc"},
        }
        made.append(Record(f"clip-{number}", members, {"length": len(values)}))
    return made


def same(a: Record, b: Record) -> bool:
    return (
        (a.key, a.meta, a.members["json"]) == (b.key, b.meta, b.members["json"])
        and a.members["values.npy"].dtype == b.members["values.npy"].dtype
        and np.array_equal(a.members["values.npy"], b.members["values.npy"])
    )


def test_reads_back_in_any_order(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 1), records(4, first=3), {})
    write_shard(shard_path(tmp_path, 0), records(3), {"by": "test"})
    shards = ShardSet(tmp_path)
    check_whole(shards)
    assert shards.keys == tuple(f"clip-{n}" for n in range(7))
    for index in (6, 0, 3, 3, 5):
        assert same(shards.read(index), records(7)[index])
        assert shards.meta(index) == {"length": 3 + index}
        assert shards.keys.index(f"clip-{index}") == index
    assert list(shards.read(2, members=["json", "video.npy"]).members) == ["json"]
    assert [s["provenance"] for s in shard_sidecars(tmp_path)] == [{"by": "test"}, {}]


def test_reads_in_other_processes(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), records(), {})
    shards = ShardSet(tmp_path)
    assert same(copy.deepcopy(shards).read(4), records()[4])  # as a spawned worker gets it
    assert same(pickle.loads(pickle.dumps(shards)).read(3), records()[3])
    if (child := os.fork()) == 0:
        os._exit(0 if same(shards.read(1), records()[1]) else 1)
    assert same(shards.read(2), records()[2])
    assert os.waitpid(child, 0)[1] == 0


def test_another_process_must_see_the_same_shards(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), records(), {})
    sent = pickle.dumps(ShardSet(tmp_path))
    write_shard(shard_path(tmp_path, 1), records(first=5), {})
    with pytest.raises(CorruptError, match="changed while"):
        pickle.loads(sent)


def test_manifest_holds_what_is_common(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), records(), {})
    assert ShardSet(tmp_path).manifest == {}
    finish(tmp_path, layers=["a"], streams=["audio"])
    assert ShardSet(tmp_path).manifest == {"layers": ["a"], "streams": ["audio"]}


def test_webdataset_reads_the_same(tmp_path: Path) -> None:
    path = shard_path(tmp_path, 0)
    long = Record("k" * 120, {"json": {}, "values.npy": np.float32(2.5)})  # beyond USTAR's 100
    written = [
        *records(),
        long,
        Record("\u00e9t\u00e9", {"json": {}, "values.npy": np.zeros((0, 2))}),
    ]
    write_shard(path, written, {})
    read = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == [record.key for record in written]
    for sample, record in zip(read, written, strict=True):
        array = np.load(BytesIO(sample["values.npy"]), allow_pickle=False)
        np.testing.assert_array_equal(array, record.members["values.npy"])
        assert array.shape == np.shape(record.members["values.npy"])


def test_same_records_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_shard(shard_path(tmp_path / folder, 0), iter(records()), {"n": 1})
    for name in ("shard-000000.tar", "shard-000000.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a" / "shard-000000.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in tar} == {(0, 0, 0, "", 0o644)}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"count": 1}'])
def test_damaged_index_is_named(tmp_path: Path, content: bytes) -> None:
    path = shard_path(tmp_path, 0)
    write_shard(path, records(), {})
    path.with_suffix(".json").write_bytes(content)
    assert not is_committed(path)
    with pytest.raises(CorruptError, match=r"shard-000000\.json"):
        ShardSet(tmp_path)


def test_a_tar_without_index_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no shards"):
        ShardSet(tmp_path)
    for number in (0, 1):
        write_shard(shard_path(tmp_path, number), records(first=9 * number), {})
    shard_path(tmp_path, 0).with_suffix(".json").unlink()
    assert not is_committed(shard_path(tmp_path, 0))
    assert ShardSet(tmp_path).keys[0] == "clip-9"


def test_an_index_without_tar_is_damage(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), records(), {})
    shard_path(tmp_path, 0).unlink()
    with pytest.raises(CorruptError, match="missing"):
        ShardSet(tmp_path)


def test_duplicate_keys_are_refused(tmp_path: Path) -> None:
    twice = [*records(2), *copy.deepcopy(records(1))]
    with pytest.raises(DataError, match="clip-0"):
        write_shard(shard_path(tmp_path, 0), twice, {})
    assert list(tmp_path.iterdir()) == []
    for number in (0, 1):
        write_shard(shard_path(tmp_path, number), records(1), {})
    with pytest.raises(DataError, match=r"clip-0.*shard-000000\.tar and shard-000001\.tar"):
        ShardSet(tmp_path)


@pytest.mark.parametrize("key", ["", "a.b"])
def test_keys_that_others_would_split_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match="empty or has a dot"):
        write_shard(shard_path(tmp_path, 0), [Record(key, {"json": {}})], {})
    assert list(tmp_path.iterdir()) == []


def test_arrays_are_the_readers_own(tmp_path: Path) -> None:
    write_shard(shard_path(tmp_path, 0), records(1), {})
    shards = ShardSet(tmp_path)
    shards.read(0).members["values.npy"][:] = 0
    assert same(shards.read(0), records(1)[0])


def test_few_files_stay_open(tmp_path: Path) -> None:
    for number in range(80):
        write_shard(shard_path(tmp_path, number), records(1, first=number), {})

    def opened() -> int:
        links = (Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd"))
        return sum(
            str(link.readlink()).startswith(str(tmp_path)) for link in links if link.is_symlink()
        )

    shards = ShardSet(tmp_path)
    assert opened() == 0
    for index in range(80):
        assert same(shards.read(index), records(1, first=index)[0])
    assert opened() == 64
    del shards
    assert opened() == 0


def test_threads_read_the_same(tmp_path: Path) -> None:
    for number in range(80):
        write_shard(shard_path(tmp_path, number), records(1, first=number), {})
    shards, order = ShardSet(tmp_path), np.random.default_rng(0).integers(0, 80, 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = pool.map(shards.read, order)
        assert all(record.key == f"clip-{i}" for record, i in zip(read, order, strict=True))


def test_python_objects_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allow_pickle"):
        write_shard(shard_path(tmp_path, 0), [Record("k", {"a.npy": np.array([object()])})], {})
    assert list(tmp_path.iterdir()) == []


WRITER = """
import itertools, sys, pathlib, numpy as np
from mmembed.data.shards.layout import Record, shard_path, write_shard
for number in itertools.count():
    rows = [Record(f"{number}-{i}", {"values.npy": np.full((40, 80), i)}) for i in range(20)]
    write_shard(shard_path(pathlib.Path(sys.argv[1]), number), rows, {})
    print(number, flush=True)
"""


def test_killed_writer_leaves_only_whole_shards(tmp_path: Path) -> None:
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        arguments = [sys.executable, "-c", WRITER, str(folder)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()  # the first shard is there
            time.sleep(0.007 * attempt)
            child.send_signal(signal.SIGKILL)
        shards = ShardSet(folder)
        check_whole(shards)
        assert len(shards) % 20 == 0
        assert len({key.split("-")[0] for key in shards.keys}) == len(shards) // 20
        for left in folder.glob(".*.tmp"):
            interrupted = folder / f"{left.name[1:].split('.')[0]}.tar"
            assert not is_committed(interrupted)
            write_shard(interrupted, records(), {})
        assert list(folder.glob(".*")) == []


def test_stale_temporaries_are_swept(tmp_path: Path) -> None:
    stale = [tmp_path / f".shard-000000.{kind}.4321.tmp" for kind in ("tar", "json")]
    for path in [*stale, tmp_path / ".shard-000001.tar.4321.tmp"]:
        path.write_bytes(b"half")
    write_shard(shard_path(tmp_path, 0), records(), {})
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == [".shard-000001.tar.4321.tmp", "shard-000000.json", "shard-000000.tar"]
