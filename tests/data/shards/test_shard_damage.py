"""A damaged shard is never read as good: what is read at all is what was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.whole import check_whole

from mmembed.data.shards.layout import (
    Record,
    ShardSet,
    index_shards,
    is_committed,
    shard_path,
    write_shard,
)
from mmembed.errors import CorruptError

TRUTH = [
    Record(
        f"clip-{number}",
        {
            "json": {"number": number, "text": "\u00fc" * number},
            "values.npy": np.random.default_rng(number)
            .standard_normal((3 + number, 4))
            .astype(np.float16),
            "video.npy": np.full((number, 2, 2), number, np.uint8),
        },
        {"lengths": {"audio": 3 + number, "video": number}, "split": "train", "speaker": None},
    )
    for number in range(5)
]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    path = shard_path(tmp_path, 0)
    write_shard(path, TRUTH, {"by": "test"})
    return path


def notices(shards: ShardSet) -> bool:
    """Whether anything raises; whatever does not is compared with the truth."""
    noticed = 0
    for index, true in enumerate(TRUTH):
        try:
            record = shards.read(index)
            assert (record.key, record.meta) == (true.key, true.meta)
            assert set(record.members) == set(true.members)
            assert record.members["json"] == true.members["json"]
            for name in ("values.npy", "video.npy"):
                assert record.members[name].dtype == true.members[name].dtype
                assert np.array_equal(record.members[name], true.members[name])
        except CorruptError as error:
            noticed += 1
            assert "shard-000000.tar" in str(error) or "index.arrow" in str(error)
    for name, values in (("key", [r.key for r in TRUTH]), ("split", ["train"] * len(TRUTH))):
        try:
            assert shards.texts(name).to_pylist() == values
        except CorruptError:
            noticed += 1
    try:
        assert shards.numbers("lengths.audio").tolist() == [3, 4, 5, 6, 7]
        check_whole(shards)
    except CorruptError:
        noticed += 1
    return noticed > 0


def test_the_undamaged_shard_passes(tar: Path) -> None:
    assert not notices(ShardSet(tar.parent))
    index_shards(tar.parent)
    assert not notices(ShardSet(tar.parent))


@pytest.mark.parametrize("indexed", [False, True])
def test_every_cut(tar: Path, indexed: bool) -> None:
    if indexed:
        index_shards(tar.parent)
    whole, opened = tar.read_bytes(), ShardSet(tar.parent)
    for cut in [*range(0, len(whole), 512), len(whole) - 1]:
        tar.write_bytes(whole[:cut])
        assert not is_committed(tar)
        with pytest.raises(CorruptError, match=r"shard-000000\.tar"):
            ShardSet(tar.parent)
        assert notices(opened)  # cut while in use


@pytest.mark.parametrize("count", [60, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("name", "indexed"),
    [("tar", False), ("tar", True), ("json", False), ("json", True), ("index.arrow", True)],
)
def test_flipped_bytes(tar: Path, name: str, indexed: bool, count: int) -> None:
    path = tar.parent / name if indexed and name == "index.arrow" else tar.with_suffix(f".{name}")
    if indexed:
        index_shards(tar.parent)
    whole, opened = path.read_bytes(), ShardSet(tar.parent)
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(whole), count).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        with path.open("r+b") as file:  # in place: a set may have it open
            file.write(damaged)
        try:
            noticed = notices(ShardSet(tar.parent))
        except CorruptError as error:
            noticed = "shard-000000" in str(error)
        if name != "index.arrow":  # the shards' own stands in for it, and some of it is padding
            assert noticed
            with pytest.raises(CorruptError, match=r"shard-000000\.(tar|json)"):
                check_whole(opened)
            assert notices(opened)
