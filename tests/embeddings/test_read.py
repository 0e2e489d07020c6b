"""Written embeddings as arrays and a table: what was written is what is read, or one line why."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from helpers.prepared import described, embedding, example, write_embeddings, write_prepared

import mmembed
from mmembed.data.shards.layout import shard_path, write_shard
from mmembed.embeddings.read import ABOUT, COPY, Embeddings, load_embeddings, map_embeddings
from mmembed.errors import CorruptError, DataError, UsageError

LABELS = {"sentiment": -1.5, "present": ["joy", "hope"], "scores": {"valence": 0.25}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three clips: labelled by category, in other ways, and not at all."""
    records = [
        embedding(0),
        described(1, labels=LABELS, split="train", language="en", notes={}),
        described(2, labels=None, speaker=None, streams=["text", "audio"]),
    ]
    return write_embeddings(tmp_path / "embeddings", records, ["audio", "text"])


def test_pooled_vectors_and_table(folder: Path) -> None:
    found = mmembed.load_embeddings(folder)
    expected = np.stack([embedding(n).members["pooled.npy"] for n in range(3)])
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, expected)
    assert found.keys == ("clip-0", "clip-1", "clip-2")
    assert len(found) == 3
    assert found.metadata["streams"] == ["audio", "text"]
    nothing = dict.fromkeys(found.table.column_names)
    assert found.table.to_pylist() == [
        {**nothing, "key": "clip-0", "speaker": "s0", "split": "test", "streams": "audio",
         "seconds": 2.0, "frames": 5, "category": "sad"},
        {**nothing, "key": "clip-1", "speaker": "s1", "split": "train", "language": "en",
         "streams": "audio", "frames": 6, "sentiment": -1.5, "present": ["joy", "hope"],
         "scores.valence": 0.25},
        {**nothing, "key": "clip-2", "split": "test", "streams": "audio+text", "seconds": 2.0,
         "frames": 7},
    ]  # fmt: skip


def test_layers_of_one_split(folder: Path) -> None:
    found = load_embeddings(folder, "layers", split="test")
    expected = np.stack([embedding(n).members["layers.npy"] for n in (0, 2)])
    np.testing.assert_array_equal(found.vectors, expected)
    assert found.keys == ("clip-0", "clip-2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"part": "words"}, "part 'words': one of pooled, layers"),
        ({"split": "dev"}, "holds no clip of split 'dev'; splits are test, train"),
    ],
)
def test_what_is_not_there_is_one_line(
    folder: Path, arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        load_embeddings(folder, **arguments)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no shards"):
        load_embeddings(tmp_path)
    prepared = write_prepared(tmp_path / "out", [example(0)])
    with pytest.raises(UsageError, match="clip-0 holds no pooled; these are no embeddings"):
        load_embeddings(prepared / "shards")
    write_shard(shard_path(tmp_path / "none", 0), [], {})
    with pytest.raises(UsageError, match="hold no record"):
        load_embeddings(tmp_path / "none")


@pytest.mark.parametrize(
    "changes",
    [
        {"pooled.npy": np.zeros(9, np.float32)},
        {"json": {}},
        {"json": {**embedding(1).members["json"], "streams": ["smell"]}},
        {"json": {**embedding(1).members["json"], "labels": {"sentiment": "good"}}},
        {"json": {**embedding(1).members["json"], "labels": {"present": 3}}},
    ],
)
def test_records_that_do_not_fit_are_corrupt(tmp_path: Path, changes: dict[str, object]) -> None:
    write_embeddings(tmp_path, [embedding(0), embedding(1, **changes)], ["audio"])
    with pytest.raises(CorruptError, match=str(tmp_path)) as error:
        load_embeddings(tmp_path)
    assert "\n" not in str(error.value)


def assert_same(one: Embeddings, other: Embeddings) -> None:
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.table.equals(other.table)
    assert one.metadata == other.metadata


def test_the_copy_is_made_once_and_mapped(folder: Path) -> None:
    first = map_embeddings(folder)
    written = (folder / COPY).stat()
    again = map_embeddings(folder)
    assert (folder / COPY).stat().st_mtime_ns == written.st_mtime_ns
    for found in (first, again):
        assert_same(found, load_embeddings(folder))
        assert not found.vectors.flags.writeable
    with pa.memory_map(str(folder / COPY)) as file:  # by any Arrow reader
        column = pa.ipc.open_file(file).read_all()["pooled"]
        assert column.to_pylist() == first.vectors.tolist()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / COPY).unlink(),
        lambda f: (f / COPY).write_bytes(b""),
        lambda f: (f / COPY).write_bytes((f / COPY).read_bytes()[:-8]),
        lambda f: flip(f / COPY),
        lambda f: (f / ABOUT).unlink(),
        lambda f: (f / ABOUT).write_text("{"),
        lambda f: (f / ABOUT).write_text("[]"),
        lambda f: flip(f / ABOUT),
    ],
)
def test_a_damaged_copy_is_made_anew(folder: Path, damage) -> None:
    map_embeddings(folder)
    good = (folder / COPY).read_bytes(), (folder / ABOUT).read_bytes()
    damage(folder)
    assert_same(map_embeddings(folder), load_embeddings(folder))
    assert ((folder / COPY).read_bytes(), (folder / ABOUT).read_bytes()) == good


def test_other_shards_of_the_same_size_make_another_copy(folder: Path) -> None:
    map_embeddings(folder)
    size = shard_path(folder, 0).stat().st_size
    records = [embedding(n) for n in range(3)]
    records[0].members["pooled.npy"][:] = 7
    write_shard(shard_path(folder, 0), records, {"failed": []})
    assert shard_path(folder, 0).stat().st_size == size
    np.testing.assert_array_equal(map_embeddings(folder).vectors[0], 7)


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_read(folder: Path) -> None:
    folder.chmod(0o500)
    try:
        assert_same(map_embeddings(folder), load_embeddings(folder))
    finally:
        folder.chmod(0o700)


def test_without_a_place_for_the_copy_vectors_are_held(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmembed.embeddings.read.write_copy", full)
    assert_same(map_embeddings(folder), load_embeddings(folder))
    assert not (folder / COPY).exists()


def test_others_read_the_shards(folder: Path) -> None:
    """The snippets of docs/embedding.md."""
    import io
    import json

    import webdataset

    keys, vectors, streams = [], [], []
    for sample in webdataset.WebDataset(
        str(folder / "shard-000000.tar"), shardshuffle=False, empty_check=False
    ):
        keys.append(sample["__key__"])
        vectors.append(np.load(io.BytesIO(sample["pooled.npy"])))
        streams.append(json.loads(sample["json"])["streams"])
    found = load_embeddings(folder)
    assert tuple(keys) == found.keys
    np.testing.assert_array_equal(np.stack(vectors), found.vectors)
    assert streams[0] == ["audio"]


def test_the_package_tells_what_it_does_not_have() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        mmembed.nothing  # noqa: B018
