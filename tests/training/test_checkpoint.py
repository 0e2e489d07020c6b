"""Checkpoints come back whole, or the one before does."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import resource
from pathlib import Path

import pytest
import torch
from torch import nn

from mmembed.errors import CorruptError
from mmembed.settings.optim import OptimConfig
from mmembed.training.checkpoint import Position, TrainingState, load_latest, save_checkpoint
from mmembed.training.optim import build_optimizer


def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    optimizer = build_optimizer(module, OptimConfig())
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_round_trip(tmp_path: Path) -> None:
    module, optimizer = make(0)
    save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(2, 5, 40))
    other, other_optimizer = make(1)
    assert load_latest(tmp_path, other, other_optimizer) == Position(2, 5, 40)
    assert torch.equal(other.weight, module.weight)
    ours, theirs = optimizer.state_dict(), other_optimizer.state_dict()
    assert torch.equal(ours["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])
    assert list(tmp_path.glob(".*")) == []


def test_two_are_kept(tmp_path: Path) -> None:
    module, optimizer = make(0)
    for total in (1, 2, 3):
        save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, total, total))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["method.safetensors", "trainer.pt", "checksums.json"])
@pytest.mark.parametrize("change", ["flip", "cut", "remove"])
def test_a_damaged_one_is_named_and_passed_over(
    tmp_path: Path, name: str, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    module, optimizer = make(0)
    save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 1, 1))
    newest = save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 2, 2))
    data = bytearray((newest / name).read_bytes())
    if change == "remove":
        (newest / name).unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        (newest / name).write_bytes(data[: len(data) // 2] if change == "cut" else data)
    other, other_optimizer = make(1)
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path, other, other_optimizer) == Position(0, 1, 1)
    assert "step-00000002" in caplog.text


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none", *make(0)) is None


def damage(folder: Path, name: str = "method.safetensors") -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_damaged_one_is_written_again(tmp_path: Path) -> None:
    module, optimizer = make(0)
    for total in (1, 2):
        save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, total, total))
    damage(tmp_path / "step-00000002")
    save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 2, 2))
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
    assert load_latest(tmp_path, *make(1)) == Position(0, 2, 2)


def test_a_damaged_one_is_none_of_the_two_kept(tmp_path: Path) -> None:
    module, optimizer = make(0)
    for total in (1, 2):
        save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, total, total))
    damage(tmp_path / "step-00000002", "trainer.pt")
    save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 3, 3))
    assert names(tmp_path) == ["step-00000001", "step-00000003"]


def test_damaged_ones_do_not_push_out_those_of_a_new_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module, optimizer = make(0)
    for total in (8, 9):
        damage(
            save_checkpoint(
                tmp_path, TrainingState.of(module, optimizer), Position(0, total, total)
            )
        )
    assert load_latest(tmp_path, module, optimizer) is None
    assert "from the beginning" in caplog.text
    save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 1, 1))
    assert names(tmp_path) == ["step-00000001"]


def test_checksums_that_name_no_file_vouch_for_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, TrainingState.of(*make(0)), Position(0, 1, 1))
    for content in ("{}", "[]", "3", "null", "[" * 10_000):
        (tmp_path / "step-00000001" / "checksums.json").write_text(content)
        assert load_latest(tmp_path, *make(1)) is None


def reseal(folder: Path) -> None:
    files = ("method.safetensors", "trainer.pt")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files}
    (folder / "checksums.json").write_text(json.dumps(sums))


def test_a_whole_one_of_something_else_is_one_error(tmp_path: Path) -> None:
    module, optimizer = make(0)
    path = save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 1, 1))
    wide = nn.Linear(4, 2)
    with pytest.raises(CorruptError, match=r"step-00000001.*size mismatch") as caught:
        load_latest(tmp_path, wide, build_optimizer(wide, OptimConfig()))
    assert caught.value.exit_code == 5 and "\n" not in str(caught.value)
    good = (path / "trainer.pt").read_bytes()
    state = torch.load(path / "trainer.pt", weights_only=True)
    position = {"epoch": 0, "step": 1, "total": 1, "moon": 2}
    moved = {key: torch.zeros(5) for key in ("exp_avg", "exp_avg_sq", "step")}
    other = {**state["optimizer"], "state": {0: moved, 1: moved}}
    less = torch.optim.SGD([torch.ones(1)]).state_dict()
    changes = [{"position": position}, {"optimizer": other}, {"optimizer": less}]
    for wrong in (b"no such file", b"", {}, [], *({**state, **change} for change in changes)):
        if isinstance(wrong, bytes):
            (path / "trainer.pt").write_bytes(wrong)
        else:
            torch.save(wrong, path / "trainer.pt")
        reseal(path)
        with pytest.raises(CorruptError, match="remove it"):
            load_latest(tmp_path, *make(1))
    (path / "trainer.pt").write_bytes(good)
    reseal(path)
    assert load_latest(tmp_path, *make(1)) == Position(0, 1, 1)


@pytest.mark.parametrize("bytes_free", [0, 150, 700])
def test_a_full_disk_loses_nothing(tmp_path: Path, bytes_free: int) -> None:
    """A limit on the size of files stands in for the disk's."""
    module, optimizer = make(0)
    save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 1, 1))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_free, limits[1]))
    try:
        with pytest.raises(OSError, match=r"step-00000002.*(safetensors|trainer\.pt)"):
            save_checkpoint(tmp_path, TrainingState.of(module, optimizer), Position(0, 2, 2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == ["step-00000001"]
    assert load_latest(tmp_path, *make(1)) == Position(0, 1, 1)


def test_leftovers_of_killed_saves_are_swept(tmp_path: Path) -> None:
    """One is being written by a process that lives, as its lock shows."""
    for name in ("a", "b", "c.damaged"):
        left = tmp_path / f".step-00000002.{name}.tmp"
        left.mkdir()
        (left / "trainer.pt").write_bytes(b"half")
        (left / "checksums.json").touch()
    (tmp_path / ".step-00000009.tmp").mkdir()  # killed early, or of an older version
    with (tmp_path / ".step-00000002.b.tmp" / "checksums.json").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert load_latest(tmp_path, *make(0)) is None
        assert names(tmp_path) == [".step-00000002.b.tmp"]
    save_checkpoint(tmp_path, TrainingState.of(*make(0)), Position(0, 1, 1))
    assert names(tmp_path) == ["step-00000001"]


def test_other_threads_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Sums are rounded in another order then."""
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        save_checkpoint(tmp_path, TrainingState.of(*make(0)), Position(0, 1, 1))
        load_latest(tmp_path, *make(0))
        assert not caplog.text
    finally:
        torch.set_num_threads(before)
    assert load_latest(tmp_path, *make(0)) == Position(0, 1, 1)
    assert f"threads {before + 1} -> {before}" in caplog.text and "bit for bit" in caplog.text
