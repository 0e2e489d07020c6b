"""`mmembed convert`: what circulates as pickle or .csd becomes files that need no trust."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.loading import load_example
from safetensors.numpy import load_file

from mmembed.commands.convert import kind_of, main
from mmembed.data.manifest.jsonl import read_manifest
from mmembed.errors import DataError, UsageError


@pytest.fixture
def csd(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.csd", "w") as file:
        for number, video in enumerate(("-3g5yACwYnA", "25522", "255224", "100.1")):
            steps = np.arange(2 * number).reshape(number, 2)
            file[f"CMU_MOSEI COVAREP/data/{video}/features"] = steps + 0.5
            file[f"CMU_MOSEI COVAREP/data/{video}/intervals"] = steps / 100
    return tmp_path / "a.csd"


def test_a_sequence_becomes_features_by_video(csd: Path, tmp_path: Path) -> None:
    main([str(csd), "--out", str(tmp_path / "out")])
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert {row.key: row.streams for row in rows} == {
        "-3g5yACwYnA": (), "100%2E1": ("audio",), "25522": ("audio",), "255224": ("audio",),
    }  # fmt: skip
    example = load_example(rows[-1], tmp_path / "out", ("audio",))
    assert example.key == "255224"
    assert example.features["audio"].tolist() == [[0.5, 1.5], [2.5, 3.5]]
    intervals = load_file(tmp_path / "out" / "intervals.safetensors")
    assert intervals["255224"].dtype == np.float64
    assert intervals["255224"].tolist() == [[0, 0.01], [0.02, 0.03]]


def test_the_stream_may_have_to_be_named(csd: Path, tmp_path: Path) -> None:
    with h5py.File(csd, "a") as file:
        file.move("CMU_MOSEI COVAREP", "Unknown")
    with pytest.raises(UsageError, match="'Unknown' audio, video or text"):
        main([str(csd), "--out", str(tmp_path / "out")])
    main([str(csd), "--out", str(tmp_path / "out"), "--stream", "video"])
    assert read_manifest(tmp_path / "out" / "manifest.jsonl")[-1].streams == ("video",)


def test_other_pickles_become_arrays_and_values(tmp_path: Path) -> None:
    values = {
        "audio": {"a/b": np.arange(6.0).reshape(2, 3), "file": np.array(["x", "y"])},
        "..": [np.float32(1.5), (None, np.zeros(2, ">i4")), {"b", "a"}],
        "ids": {1: np.ones(1), "1": np.zeros(1)},
        "objects": np.array([["a", 1], ["b", np.ones(1)]], object),
        "$array": b"raw",
        "text": "caf\u00e9",
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(values, 2))
    main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / "out")])
    tree = json.loads((tmp_path / "out" / "values.json").read_text())
    with np.load(tmp_path / "out" / "arrays.npz", allow_pickle=False) as found:
        arrays = dict(found)

    def back(value: object) -> object:
        if isinstance(value, dict):
            kind = next(iter(value), "")
            if kind == "$array":
                return arrays[value[kind]].tolist()
            if kind == "$bytes":
                return arrays[value[kind]].tobytes()
            if kind == "$dict":
                return {key: back(item) for key, item in value[kind]}
            return {key: back(item) for key, item in value.items()}
        return [back(item) for item in value] if isinstance(value, list) else value

    assert back(tree) == {
        "audio": {"a/b": [[0, 1, 2], [3, 4, 5]], "file": ["x", "y"]},
        "..": [1.5, [None, [0, 0]], ["a", "b"]],
        "ids": {1: [1], "1": [0]},
        "objects": [["a", 1], ["b", [1]]],
        "$array": b"raw",
        "text": "caf\u00e9",
    }
    assert arrays["audio/a%2Fb"].shape == (2, 3) and not any(".." in name for name in arrays)


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.arange(3), "b": [1, 2]}))
    for out in ("one", "two"):
        main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / out)])
    for name in ("arrays.npz", "values.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_kinds() -> None:
    split = {"id": ["v$_$1"], "raw_text": ["a"], "regression_labels": np.zeros(1)}
    assert kind_of({"train": split, "valid": split, "test": split}) is None
    for video, corpus in (("-3g5yACwYnA", "mosei"), ("1DmNV9C1hbY", "mosi")):
        named = {**split, "id": [f"{video}$_$1"]}
        assert kind_of({"train": named, "valid": split, "test": split}) == corpus
        assert kind_of({"train": named, "test": {"id": []}}) is None
    assert kind_of({"train": {**split, "regression_labels_T": np.zeros(1)}}) == "sims"
    table = {"Ses01": [1]}
    assert kind_of((table,) * 10 + (["Ses01"], ["Ses02"])) == "dialogue_pickles"
    assert kind_of((table,) * 7 + (["Ses01"], ["Ses02"])) == "dialogue_pickles"
    assert kind_of((table,) * 7) is None and kind_of([1] * 9) is None
    assert kind_of({"a": 1}) is None and kind_of(np.zeros(9)) is None


class Evil:
    def __reduce__(self) -> object:
        return os.system, ("touch sentinel",)


def test_the_program_refuses_what_would_run(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"train": Evil()}))
    command = [sys.executable, "-c", "from mmembed.commands import cli, convert; import sys\n"
               "sys.exit(cli.run_program(convert.main))"]  # fmt: skip
    ended = subprocess.run(
        [*command, "a.pkl", "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert ended.returncode == 4
    assert ended.stderr == (
        "error: a.pkl: it asks for posix.system, where plain values and numpy arrays are read; "
        "nothing of it was run\n"
    )
    assert not (tmp_path / "sentinel").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / "out")])


def test_a_pickle_of_mmsa_becomes_what_prepare_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = np.random.default_rng(0)
    splits = {
        name: {
            "id": [f"{video}$_$1"],
            "raw_text": ["so good"],
            "regression_labels": np.array([1.5]),
            "text": draw.normal(size=(1, 4, 768)),
            "audio": draw.normal(size=(1, 6, 74)),
            "vision": draw.normal(size=(1, 5, 35)),
            "audio_lengths": [6],
            "vision_lengths": [5],
        }
        for name, video in (("train", "-3g5yACwYnA"), ("valid", "--qXJuDtHPw"))
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(splits))
    main([str(tmp_path / "a.pkl"), "--out", str(tmp_path / "out")])
    assert "segments in train" in capsys.readouterr().out  # the integrity report
    rows = read_manifest(tmp_path / "out" / "manifest.jsonl")
    assert [(row.split, row.labels.sentiment) for row in rows] == [("train", 1.5), ("dev", 1.5)]
    example = load_example(rows[0], tmp_path / "out")
    np.testing.assert_array_equal(
        example.features["audio"], splits["train"]["audio"][0].astype(np.float32)
    )
