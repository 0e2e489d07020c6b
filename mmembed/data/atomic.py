"""Files that are either whole or not there, and folders that one program at a time writes to."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from mmembed.errors import UsageError

PATIENCE: Final = 60.0  # seconds to wait for a program that is just being stopped

_held: dict[Path, list[BinaryIO]] = {}


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the name `path` when the block ends without an exception.

    The bytes go to a hidden temporary in the same folder, are synced, renamed over `path`, and the
    folder is synced: after a crash at any moment `path` holds all of the old or all of the new
    bytes. Temporaries that a killed writer of the same path left behind are removed first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_temporaries(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with errors_of(path), temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
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


def sweep_temporaries(path: Path) -> None:
    """Remove what killed writers of `path` left behind."""
    prefix, suffix = f".{path.name}.", ".tmp"
    for entry in path.parent.iterdir():
        if entry.name.startswith(prefix) and entry.name.endswith(suffix):
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
        part: a name under which this process shares the folder with those of other names.
        patience: seconds to wait for a program that holds it.

    Raises:
        UsageError: another one is still at work there after `patience` seconds.
    """
    folder = folder.resolve()
    if folder in _held:
        return
    folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + patience
    locks = [_lock(folder / ".lock", fcntl.LOCK_SH if part else fcntl.LOCK_EX, until)]
    if part:
        locks.append(_lock(folder / f".lock-{part}", fcntl.LOCK_EX, until))
    _held[folder] = locks


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
    """One process at a time gets beyond this; `path` is a file that stays."""
    with _lock(path, fcntl.LOCK_EX, time.monotonic() + PATIENCE):
        yield


def _lock(path: Path, how: int, until: float) -> BinaryIO:
    lock = path.open("ab")
    while True:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            return lock
        except BlockingIOError:
            if time.monotonic() >= until:
                lock.close()
                raise UsageError(
                    f"{path.parent}: another program is writing there; wait for its end or stop it"
                ) from None
            time.sleep(0.2)
