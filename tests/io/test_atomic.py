"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers.holders import another

import mmembed.io.atomic as atomic
from mmembed.io.atomic import atomic_file, sweep_temporaries

WRITE = "stack.enter_context(atomic_file(folder / 'a.txt')).write(b'new')"


def test_temporaries_of_living_writers_stay(tmp_path: Path) -> None:
    """Whatever number their processes have, here or on another machine."""
    path = tmp_path / "a.txt"
    (tmp_path / f".a.txt.{os.getpid()}.tmp").write_bytes(b"half")
    with another(WRITE, tmp_path) as writer:
        assert len(list(tmp_path.glob(".*.tmp"))) == 1  # the old one is gone
        with atomic_file(path) as file:
            file.write(b"mine")
        sweep_temporaries(tmp_path)
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
        assert path.read_bytes() == b"mine"
        writer.communicate(b"\n")
        assert writer.returncode == 0
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_temporaries_of_killed_writers_go(tmp_path: Path) -> None:
    for end in (lambda: sweep_temporaries(tmp_path), lambda: write(tmp_path / "a.txt")):
        with another(WRITE, tmp_path) as writer:
            writer.kill()
            writer.wait()
        assert len(list(tmp_path.glob(".a.txt.*.tmp"))) == 1
        (tmp_path / ".step-1.tmp").mkdir(exist_ok=True)  # no file: not ours
        end()
        assert not list(tmp_path.glob(".a.txt.*.tmp"))


def write(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(b"whole")


@pytest.mark.parametrize("step", ["flock", "fsync", "replace"])
def test_a_failed_write_leaves_nothing(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write(tmp_path / "a.txt")
    owner = {"flock": atomic.fcntl, "fsync": os, "replace": Path}[step]
    monkeypatch.setattr(owner, step, full)
    with pytest.raises(OSError, match="No space"), atomic_file(tmp_path / "a.txt") as file:
        file.write(b"other")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == b"whole"


def test_a_sweep_between_making_and_locking_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, swept = atomic.fcntl.flock, []

    def sweep_first(file: object, how: int) -> None:
        if not swept:
            swept.append(True)
            sweep_temporaries(tmp_path)
        lock(file, how)  # type: ignore[arg-type]

    monkeypatch.setattr(atomic.fcntl, "flock", sweep_first)
    write(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == b"whole" and swept
