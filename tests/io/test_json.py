"""Files that any reader of JSON takes; nothing else writes JSON that may hold a result."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from mmembed.config import differences, read_json
from mmembed.io.json import dumps, write_json, write_lines
from mmembed.training.run_folder import open_run_folder

ROOT = Path(__file__).parents[2]
# What is read by this project alone, in the same run, or checked by `allow_nan=False` itself.
OTHERS = {
    "mmembed/io/json.py",
    "mmembed/data/untrusted/sandbox.py",
    "mmembed/data/media/pool.py",
    "mmembed/data/untrusted/serialize.py",
    "mmembed/data/inputs.py",
    "mmembed/data/shards/format.py",
    "mmembed/data/prepare.py",
    "mmembed/data/manifest/jsonl.py",
}
VALUE = {
    "a": [1.5, float("nan"), {"b": (float("inf"), -float("inf"), 0)}],
    "c": np.float64("nan"), "d": True, "e": None, "f": "NaN",
}  # fmt: skip


def refuse(constant: str) -> None:
    raise AssertionError(constant)


def test_null_stands_for_what_is_not_finite(tmp_path: Path) -> None:
    expected = {"a": [1.5, None, {"b": [None, None, 0]}], "c": None, "d": True, "e": None}
    expected["f"] = "NaN"
    assert json.loads(dumps(VALUE, indent=1), parse_constant=refuse) == expected
    write_json(tmp_path / "one.json", VALUE)
    assert read_json(tmp_path / "one.json") == expected
    write_lines(tmp_path / "lines.jsonl", [VALUE, VALUE])
    for line in (tmp_path / "lines.jsonl").read_text().splitlines():
        assert json.loads(line, parse_constant=refuse) == expected


def test_numbers_keep_all_digits() -> None:
    values = [0.1 + 0.2, 1e-300, 12345678901234567890, -0.0]
    assert dumps(values) == json.dumps(values)


def test_a_setting_that_is_not_finite_is_the_same_at_the_next_start(tmp_path: Path) -> None:
    for _ in range(2):
        open_run_folder(tmp_path, {"optim": {"clip": float("inf")}})
    assert not list(differences(read_json(tmp_path / "run.json"), {"optim": {"clip": None}}))


@pytest.mark.parametrize("folder", ["mmembed", "train", "export"])
def test_results_are_written_by_nothing_else(folder: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"json\.dumps?\(", path.read_text())
    }
    assert found <= OTHERS
