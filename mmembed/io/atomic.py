"""Files that are either whole or not there, and folders that one program at a time writes to.

Who is at work is told by locks (flock) and never by process numbers: these say nothing about
another machine or container that has the same folder. A lock goes with its process, however that
ends, and a waiting process may therefore rely on it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from mmembed.errors import UsageError

log = logging.getLogger(__name__)

PATIENCE: Final = 60.0  # seconds to wait for a program that is just being stopped

_NOTICE: Final = 10.0  # seconds after which a waiting process says so
_POLL: Final = 0.2  # seconds

_held: dict[Path, list[BinaryIO]] = {}


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when the block ends without an exception.

    The bytes go to a hidden temporary in the same folder, are synced, renamed over `path`, and the
    folder is synced: after a crash at any moment `path` holds all of the old or all of the new
    bytes. Temporaries that a killed writer of the same path left behind are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(path.parent, path.name)
    file = _locked_temporary(path)
    temporary = Path(file.name)
    try:
        with errors_of(path), file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)  # before the lock goes: unlocked it could be swept
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """A block that writes `path`: an error of the system that names no file names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _locked_temporary(path: Path) -> BinaryIO:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = temporary.open("xb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if temporary.exists():  # else it was swept before it was locked
                return file
        except BaseException:
            file.close()
            temporary.unlink(missing_ok=True)
            raise
        file.close()


def sweep_temporaries(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers left behind in a folder; what a living one writes is locked.

    Args:
        folder: which is there.
        name: of the file that they wrote; None = any.
    """
    prefix = "." if name is None else f".{name}."
    for entry in folder.iterdir():
        if entry.name.startswith(prefix) and entry.name.endswith(".tmp"):
            # Locked by its writer, gone by now, not ours to remove: let it be.
            with suppress(OSError), entry.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                entry.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames within a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold_folder(folder: Path, part: str = "", patience: float = PATIENCE) -> None:
    """Keep other programs from writing to a folder until this process ends, however it ends.

    Args:
        folder: made if it is not there.
        part: "RANK-of-WORLD": this process shares the folder with the other ranks of the same
            world. Two worlds would cut the work in two ways and do it twice.
        patience: seconds to wait for a program that holds it.

    Raises:
        UsageError: another one is still at work there after `patience` seconds.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    while True:
        try:
            _held[folder] = _take(folder, part)
            return
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise UsageError(
                    f"{folder}: {error}; wait for its end or stop it, then run again"
                ) from None
            time.sleep(_POLL)


def _take(folder: Path, part: str) -> list[BinaryIO]:
    """The locks of a part, all of them or none.

    Raises:
        BlockingIOError: somebody else has one of them.
    """
    busy = "another program is writing there"
    if not part:
        return [_lock(folder / ".lock", fcntl.LOCK_EX, busy)]
    world = part.rpartition("-")[2]
    with only_one(folder / ".claim"), ExitStack() as taken:
        locks = [
            taken.enter_context(_lock(folder / ".lock", fcntl.LOCK_SH, busy)),
            taken.enter_context(_lock(folder / f".lock-{part}", fcntl.LOCK_EX, busy)),
        ]
        for other in folder.glob(".lock-*-of-*"):
            if other.name.rpartition("-")[2] != world:
                _lock(other, fcntl.LOCK_EX, f"{other.name[6:]} is at work there").close()
        taken.pop_all()
        return locks


def is_held(folder: Path) -> bool:
    """Whether another program keeps a folder for itself; nothing is written."""
    try:
        with (folder / ".lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """One process at a time gets beyond this; `path` is a file that stays.

    There is no limit on the wait: as long as it lasts the other process lives and is at work.
    """
    noticed = time.monotonic() + _NOTICE
    while True:
        try:
            lock = _lock(path, fcntl.LOCK_EX, "")
            break
        except BlockingIOError:
            if time.monotonic() >= noticed:
                log.warning("%s: waiting for another process that is at work there", path.parent)
                noticed = float("inf")
            time.sleep(_POLL)
    with _unlocked_after(lock):
        yield


@contextmanager
def finishing(folder: Path) -> Iterator[bool]:
    """Whether this process is the one that finishes a folder of which every part is done.

    Of those that see the end at the same moment one gets True; the others need neither wait nor
    fail, since it holds a lock as long as it lives, and if it is killed the next start finishes.
    Temporaries that killed writers left behind are removed first.
    """
    try:
        lock = _lock(folder / ".finish", fcntl.LOCK_EX, "")
    except BlockingIOError:
        yield False
        return
    with _unlocked_after(lock):
        sweep_temporaries(folder)
        yield True


@contextmanager
def _unlocked_after(lock: BinaryIO) -> Iterator[None]:
    with lock:
        try:
            yield
        finally:  # closing is not enough: a child forked meanwhile holds the file open
            fcntl.flock(lock, fcntl.LOCK_UN)


def _lock(path: Path, how: int, busy: str) -> BinaryIO:
    """A lock until the file is closed.

    Raises:
        BlockingIOError: saying `busy`.
    """
    lock = path.open("ab")
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise BlockingIOError(busy) if isinstance(error, BlockingIOError) else error from None
    return lock
