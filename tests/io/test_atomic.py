"""Files that are whole or not there; one program at a time, and one finisher of many ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

import mmembed.io.atomic as atomic
from mmembed.errors import UsageError
from mmembed.io.atomic import (
    atomic_file,
    finishing,
    hold_folder,
    sweep_temporaries,
)

HOLD = "hold_folder(folder, *sys.argv[2:])"
WRITE = "stack.enter_context(atomic_file(folder / 'a.txt')).write(b'new')"
ONLY_ONE = "stack.enter_context(only_one(folder / '.claim'))"
FINISH = "print('first' if stack.enter_context(finishing(folder)) else 'other')"


@contextmanager
def another(action: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has done this and keeps it until it reads a line or is ended."""
    program = f"""
import pathlib, sys
from contextlib import ExitStack
from mmembed.io.atomic import *
from mmembed.io.atomic import finishing, only_one
folder = pathlib.Path(sys.argv[1])
with ExitStack() as stack:
    {action}
    print("ready", flush=True)
    sys.stdin.readline()
"""
    command = [sys.executable, "-c", program, str(folder), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            wait_for(process.stdout, b"ready\n")
            yield process
        finally:
            process.kill()


def wait_for(pipe: IO[bytes] | None, line: bytes) -> None:
    assert pipe is not None
    while (said := pipe.readline()) != line:
        assert said


def test_a_held_folder_is_refused_until_its_holder_is_gone(tmp_path: Path) -> None:
    with another(HOLD, tmp_path) as holder:
        with pytest.raises(UsageError, match="another program is writing there"):
            hold_folder(tmp_path, patience=0.1)
        holder.kill()
        holder.wait()
        hold_folder(tmp_path, patience=5)
        hold_folder(tmp_path, patience=0)  # it is this process's own by now


def test_ranks_share_a_folder_but_not_a_rank(tmp_path: Path) -> None:
    with another(HOLD, tmp_path, "0-of-2"):
        for part in ("", "0-of-2"):
            with pytest.raises(UsageError, match="another program is writing there"):
                hold_folder(tmp_path, part, patience=0.1)
        hold_folder(tmp_path, "1-of-2", patience=0.1)


def test_ranks_of_two_worlds_do_not_share_a_folder(tmp_path: Path) -> None:
    with another(HOLD, tmp_path, "0-of-2") as holder:
        with pytest.raises(UsageError, match=r"0-of-2 is at work there; wait for its end"):
            hold_folder(tmp_path, "2-of-3", patience=0.1)
        with another(HOLD, tmp_path, "1-of-2"):  # the refused one left no lock behind
            pass
        holder.kill()
        holder.wait()
        hold_folder(tmp_path, "2-of-3", patience=5)


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


WAITER = """
import logging, pathlib, sys
import mmembed.io.atomic as atomic
atomic.PATIENCE, atomic._NOTICE = 0.0, 0.0
logging.basicConfig(stream=sys.stdout, format="%(message)s")
with atomic.only_one(pathlib.Path(sys.argv[1]) / ".claim"):
    print("got it")
"""


def test_who_waits_outlasts_a_stopped_process(tmp_path: Path) -> None:
    """There is no time after which it fails."""
    with another(ONLY_ONE, tmp_path) as holder:
        holder.send_signal(signal.SIGSTOP)
        command = [sys.executable, "-c", WAITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as waiter:
            wait_for(
                waiter.stdout,
                f"{tmp_path}: waiting for another process that is at work there\n".encode(),
            )
            assert waiter.poll() is None
            holder.send_signal(signal.SIGCONT)
            holder.communicate(b"\n")
            assert waiter.communicate(timeout=60)[0] == b"got it\n"


def test_one_of_many_finishes_and_a_killed_one_is_followed(tmp_path: Path) -> None:
    with another(FINISH, tmp_path) as first:
        with finishing(tmp_path) as ours:
            assert not ours
        first.kill()
        first.wait()
    (tmp_path / ".shard.tar.1.tmp").touch()
    with finishing(tmp_path) as ours:
        assert ours
    with finishing(tmp_path) as ours:
        assert ours
    assert [entry.name for entry in tmp_path.iterdir()] == [".finish"]
