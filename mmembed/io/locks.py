"""Locks between processes: folders that one program at a time writes to, and work done once.

The locks are flock locks on files that stay (`filelock`): no process number says who is at work,
since it says nothing about another machine or container that has the same folder. A lock goes with
its process, however that ends. On NFS, flock works where the mount allows locks; a file system
without locks is an error, never a reason to go on without one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from mmembed.errors import UsageError
from mmembed.io.atomic import sweep_temporaries

log = logging.getLogger(__name__)

TIMEOUT: Final = 60.0  # seconds to wait for a program that is just being stopped

_NOTICE: Final = 10.0  # seconds after which a waiting process says so
_POLL: Final = 0.2  # seconds

_locked: dict[Path, FileLock] = {}


def lock_folder(folder: Path, part: str = "", timeout: float = TIMEOUT) -> None:
    """Keep other programs from writing to a folder until this process ends, however it ends.

    Args:
        folder: made if it is not there.
        part: "RANK-of-WORLD": this process shares the folder with the other ranks of the same
            world. Two worlds would cut the work in two ways and do it twice.
        timeout: seconds to wait for a program that has it.

    Raises:
        UsageError: another one is still at work there after `timeout` seconds.
    """
    folder = folder.resolve()
    if folder in _locked:
        return
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + timeout
    while True:
        try:
            _locked[folder] = _lock_part(folder, part)
            return
        except Timeout as error:
            if time.monotonic() >= until:
                other = Path(error.lock_file).name.removeprefix(".lock").removeprefix("-")
                known = part and other not in ("", part)
                who = f"{other} is at work" if known else "another program is writing"
                raise UsageError(
                    f"{folder}: {who} there; wait for its end or stop it, then run again"
                ) from None
            time.sleep(_POLL)


def _lock_part(folder: Path, part: str) -> FileLock:
    """The lock of a part. The lock of the whole folder is kept, or needed for this moment only.

    Raises:
        Timeout: another program has a lock that excludes this one.
    """
    world = part.rpartition("-")[2]
    with ExitStack() as held:
        whole = held.enter_context(_lock(folder / ".lock"))
        own = held.enter_context(_lock(folder / f".lock-{part}")) if part else whole
        for other in folder.glob(".lock-*-of-*"):
            if other.name.rpartition("-")[2] != world:
                with _lock(other):
                    pass
        own.acquire()  # once more: it outlasts this block
    return own


def is_locked(folder: Path) -> bool:
    """Whether another program keeps a folder for itself; nothing is written."""
    path = folder / ".lock"
    if not path.exists():
        return False
    try:
        with _lock(path):
            return False
    except Timeout:
        return True
    except OSError:  # not ours to write to
        return False


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """One process at a time gets beyond this; `path` is a file that stays.

    There is no limit on the wait: as long as it lasts the other process lives and is at work.
    """
    lock = _lock(path)
    try:
        held = lock.acquire(timeout=_NOTICE)
    except Timeout:
        log.warning("%s: waiting for another process that is at work there", path.parent)
        held = lock.acquire(timeout=-1)
    with held:
        yield


@contextmanager
def finishing(folder: Path) -> Iterator[bool]:
    """Whether this process is the one that finishes a folder of which every part is done.

    Of those that see the end at the same moment one gets True; the others need neither wait nor
    fail, since it holds a lock as long as it lives, and if it is killed the next start finishes.
    Temporaries that killed writers left behind are removed first.
    """
    try:
        held = _lock(folder / ".finish").acquire()
    except Timeout:
        yield False
        return
    with held:
        sweep_temporaries(folder)
        yield True


def _lock(path: Path) -> FileLock:
    """A lock that is not waited for unless its user says so, of a process and not of a thread."""
    return FileLock(
        path, timeout=0, thread_local=False, poll_interval=_POLL, fallback_to_soft=False
    )
