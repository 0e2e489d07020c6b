"""One program at a time in a folder, and one finisher of many ranks."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.holders import another, wait_for

from mmembed.errors import UsageError
from mmembed.io.locks import finishing, is_locked, lock_folder

HOLD = "lock_folder(folder, *sys.argv[2:])"
FILE_LOCK = "stack.enter_context(file_lock(folder / '.claim'))"
FINISH = "print('first' if stack.enter_context(finishing(folder)) else 'other')"


def test_a_held_folder_is_refused_until_its_holder_is_gone(tmp_path: Path) -> None:
    with another(HOLD, tmp_path) as holder:
        with pytest.raises(UsageError, match="another program is writing there"):
            lock_folder(tmp_path, timeout=0.1)
        holder.kill()
        holder.wait()
        lock_folder(tmp_path, timeout=5)
        lock_folder(tmp_path, timeout=0)  # it is this process's own by now


def test_ranks_share_a_folder_but_not_a_rank(tmp_path: Path) -> None:
    with another(HOLD, tmp_path, "0-of-2"):
        for part in ("", "0-of-2"):
            with pytest.raises(UsageError, match="another program is writing there"):
                lock_folder(tmp_path, part, timeout=0.1)
        lock_folder(tmp_path, "1-of-2", timeout=0.1)


def test_ranks_of_two_worlds_do_not_share_a_folder(tmp_path: Path) -> None:
    with another(HOLD, tmp_path, "0-of-2") as holder:
        with pytest.raises(UsageError, match=r"0-of-2 is at work there; wait for its end"):
            lock_folder(tmp_path, "2-of-3", timeout=0.1)
        with another(HOLD, tmp_path, "1-of-2"):  # the refused one left no lock behind
            pass
        holder.kill()
        holder.wait()
        lock_folder(tmp_path, "2-of-3", timeout=5)


WAITER = """
import logging, pathlib, sys
import mmembed.io.locks as locks
locks._NOTICE = 0.0
logging.basicConfig(stream=sys.stdout, format="%(message)s")
with locks.file_lock(pathlib.Path(sys.argv[1]) / ".claim"):
    print("got it")
"""


def test_who_waits_outlasts_a_stopped_process(tmp_path: Path) -> None:
    """There is no time after which it fails."""
    with another(FILE_LOCK, tmp_path) as holder:
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


def test_who_looks_writes_nothing(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with another(HOLD, tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(".lock", b"")]


def test_a_lock_goes_with_its_process_and_not_with_children_of_it(tmp_path: Path) -> None:
    child = "__import__('os').fork() or __import__('time').sleep(20)"
    with another(f"{HOLD}; {child}", tmp_path) as holder:
        holder.kill()
        holder.wait()
        lock_folder(tmp_path, timeout=5)


def test_a_file_system_without_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", missing)
    with pytest.raises(OSError, match="not implemented"):
        lock_folder(tmp_path)
