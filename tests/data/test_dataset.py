"""Examples out of several folders: selection, columns and order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import mmembed.data.shards.index_file
from mmembed.data.dataset import Examples, Meta
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import Record, index_shards, shard_path, write_shard
from mmembed.data.shards.records import to_record

ROWS = [("train", "ann"), (None, "bo"), ("dev", "ann"), ("train", None), ("train", "bo")]


def made(corpus: str) -> list[Example]:
    return [
        Example(
            Utterance(f"{corpus}-{n}", None, split=split, speaker=speaker, transcript=f"word {n}"),
            audio=np.full(10 + n, n, np.int16),
            text=f"word {n}",
        )
        for n, (split, speaker) in enumerate(ROWS)
    ]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """One with an index, one without; a batch of rows for each shard."""
    monkeypatch.setattr(mmembed.data.shards.index_file, "_BATCH", 1)
    for corpus in ("one", "two"):
        records = [Record(*to_record(example)) for example in made(corpus)]
        for number, part in enumerate((records[:2], records[2:])):
            write_shard(shard_path(tmp_path / corpus, number), part, {})
    index_shards(tmp_path / "one")
    return [tmp_path / "one", tmp_path / "two"]


def test_all(folders: list[Path]) -> None:
    examples, true = Examples(folders), [*made("one"), *made("two")]
    assert len(examples) == len(true)
    assert examples.sizes == (5, 5)
    for index, (read, example) in enumerate(zip(examples, true, strict=True)):
        assert dataclasses.replace(read, audio=None) == dataclasses.replace(example, audio=None)
        np.testing.assert_array_equal(read.audio, example.audio)
        assert examples.key(index) == example.key
        assert examples.meta(index)["transcript"] == example.utterance.transcript
    assert examples[-1].key == examples.key(9) == "two-4"
    for outside in (10, -11):
        with pytest.raises(IndexError):
            examples[outside]
    assert examples.numbers("lengths.audio").tolist() == [10, 11, 12, 13, 14] * 2


def test_selection(folders: list[Path]) -> None:
    asked: list[tuple[object, object]] = []

    def keep(meta: Meta) -> bool:
        asked.append((meta["split"], meta["speaker"]))
        return meta["split"] in ("train", None) and meta["speaker"] != "ann"

    examples = Examples(folders, keep)
    assert examples.sizes == (3, 3)
    assert [examples.key(i) for i in range(6)] == [
        f"{c}-{n}" for c in ("one", "two") for n in (1, 3, 4)
    ]
    assert [example.key for example in examples] == [examples.key(i) for i in range(6)]
    assert examples.numbers("lengths.audio").tolist() == [11, 13, 14] * 2
    assert examples.texts("speaker").to_pylist() == ["bo", None, "bo"] * 2
    assert examples.texts("split").to_pylist() == [None, "train", "train"] * 2
    assert sorted(asked, key=str) == sorted([*ROWS, *ROWS], key=str)  # each pair once a folder


def test_nothing_is_selected(folders: list[Path]) -> None:
    examples = Examples(folders, lambda meta: meta["split"] == "test")
    assert (len(examples), examples.sizes, list(examples)) == (0, (0, 0), [])
    assert examples.numbers("lengths.text").tolist() == []
    assert examples.texts("split").to_pylist() == []
