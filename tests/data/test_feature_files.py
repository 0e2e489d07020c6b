"""Precomputed features: what is written is read back, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.loading import load_example
from safetensors.numpy import save

from mmembed.data.feature_files import read_features, write_features
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.records import from_record, to_record
from mmembed.errors import CorruptError, DataError

ROWS = [
    {"audio": np.arange(6, dtype=np.float32).reshape(2, 3), "text": np.ones((1, 2), np.float32)},
    {"text": np.full((3, 2), 2, np.float32)},
    {"audio": np.full((1, 3), 9, np.float32)},
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_features(tmp_path / "train.safetensors", ROWS)
    return tmp_path / "train.safetensors"


def test_rows_come_back_without_padding(file: Path) -> None:
    for number, row in enumerate(ROWS):
        found = read_features(file, number)
        assert set(found) == set(row)
        for stream, values in row.items():
            np.testing.assert_array_equal(found[stream], values)


def test_missing_rows_and_damage_are_told(file: Path) -> None:
    for row in (-1, 3):
        with pytest.raises(DataError, match="no such row"):
            read_features(file, row)
    with pytest.raises(DataError, match="no such file"):
        read_features(file.with_name("x.safetensors"), 0)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CorruptError, match="damaged"):
        read_features(file, 0)


def test_two_widths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="widths"):
        write_features(tmp_path / "a.safetensors", [ROWS[0], {"text": np.ones((1, 5), np.float32)}])


def test_examples_of_features_pass_through_shards(file: Path) -> None:
    row = Utterance("a", "train.safetensors#0", transcript="Hello")
    example = load_example(row, file.parent, ("audio", "text"))
    assert example.streams == ("audio", "text") and example.text == "hello"
    key, members, meta = to_record(example)
    assert meta["features"] == {"audio": [2, 3], "text": [1, 2]}
    again = from_record(key, members)
    np.testing.assert_array_equal(again.features["audio"], ROWS[0]["audio"])
    assert load_example(row, file.parent, ("text",)).features.keys() == {"text"}
    with pytest.raises(DataError, match="has no video"):
        load_example(row, file.parent, ("video",))


@pytest.mark.parametrize(
    "ends",
    [
        np.array([0, 2**62, 5]),
        np.array([-3, 2, 5]),
        np.array([0, 4, 2, 5]),
        np.array([0, 2, 4]),
        np.array([0.0, 2.0, 5.0]),
        np.array([[0, 5]]),
        np.zeros(0, np.int64),
    ],
)
def test_offsets_beyond_the_steps_are_damage(tmp_path: Path, ends: np.ndarray) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"audio": np.zeros((5, 2), np.float32), "audio.offsets": ends}))
    with pytest.raises(CorruptError, match="audio"):
        read_features(path, 0)
