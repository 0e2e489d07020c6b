"""A run goes on with the data it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmembed.data.shards.layout import Record, finish, shard_path, write_shard
from mmembed.errors import UsageError
from mmembed.training.data_digest import check_data


def shards(folder: Path, word: str) -> Path:
    meta = {"split": "train", "speaker": None}
    write_shard(shard_path(folder, 0), [Record("k", {"json": {"text": word}}, meta)], {})
    finish(folder)
    return folder


def test_shards_replaced_under_their_name_are_named(tmp_path: Path) -> None:
    one, two = shards(tmp_path / "one", "a"), shards(tmp_path / "every" / "audio", "b")
    (tmp_path / "encoder").mkdir()
    config = {
        "data": {"shards": (str(one),)},
        "embeddings": str(tmp_path / "every"),
        "encoder": tmp_path / "encoder",
        "epochs": 3,
        "prompt": "joy: " + "x" * 5000,
        "other": "y" * 5000,
    }
    for _ in range(2):
        check_data(tmp_path, config)
    shards(one, "a")  # the same bytes again
    check_data(tmp_path, config)
    shards(two, "c")
    with pytest.raises(UsageError, match=r"on other data \(embeddings/audio: shards were replaced"):
        check_data(tmp_path, config)
    shards(two, "b")
    shards(one, "c")
    with pytest.raises(UsageError, match=r"on other data \(data\.shards\[0\]: "):
        check_data(tmp_path, config)
