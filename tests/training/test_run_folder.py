"""The record of a run outlives what a crash or a disk makes of its lines."""

from __future__ import annotations

import json
import logging
import resource
from pathlib import Path

import pytest

from mmembed.training.run_folder import MetricsLog, open_run_folder


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, *steps: int) -> bytes:
    log = MetricsLog(path, 0)
    for step in steps:
        log.write(split="train", step=step, seconds=float(step), loss=1 / step)
    return path.read_bytes()


@pytest.mark.parametrize(
    "end",
    [b'{"split": "train", "st', b"\0" * 700, b'{"split": "train"}\n', b'["step", 3]\n',
     b'{"step": "3"}\n', b"\xff\xfe\n", b"[" * 100_000],
)  # fmt: skip
def test_what_cannot_be_read_is_dropped_and_said(
    tmp_path: Path, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(written(path, 1, 2, 3) + end)
    with caplog.at_level(logging.WARNING):
        log = MetricsLog(path, 2)
    assert [line["step"] for line in lines(path)] == [1, 2] and log.seconds == 2.0
    assert "metrics.jsonl: 1 line(s)" in caplog.text


def test_a_damaged_line_in_the_middle(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    first, second, third = written(path, 1, 2, 3).splitlines(keepends=True)
    path.write_bytes(first + b"\0" * 30 + second[30:] + third)
    with caplog.at_level(logging.WARNING):
        MetricsLog(path, 3)
    assert [line["step"] for line in lines(path)] == [1, 3]
    caplog.clear()
    MetricsLog(path, 3)
    assert not caplog.text


def test_scores_that_come_again_are_not_kept_twice(tmp_path: Path) -> None:
    """A checkpoint at the end of an epoch is of before its scores."""
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in (1, 2):
        log.write(split="train", step=step, loss=0.5)
        log.write(split="dev", step=step, wer=0.5)
    MetricsLog(path, 2)
    assert [(line["split"], line["step"]) for line in lines(path)] == [
        ("train", 1), ("dev", 1), ("train", 2),
    ]  # fmt: skip


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path, 0).write(step=1, loss=float("nan"), gradient_norm=float("inf"))
    assert "NaN" not in path.read_text() and lines(path)[0]["loss"] is None


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    log.write(step=1, loss=0.5)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))
    try:
        with pytest.raises(OSError, match=r"metrics\.jsonl"):
            log.write(step=2, loss=0.25)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    MetricsLog(path, 2)
    assert [line["step"] for line in lines(path)] == [1]


def test_a_damaged_run_json_is_one_error(tmp_path: Path) -> None:
    from mmembed.errors import CorruptError

    (tmp_path / "run.json").write_text('{"name": "ti')
    with pytest.raises(CorruptError, match=r"run\.json"):
        open_run_folder(tmp_path, {"name": "tiny"})
