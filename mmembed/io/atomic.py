"""Files that are either whole or not there.

A temporary is locked (flock) as long as its writer lives, so that a sweep removes only those of
killed writers. This lock is on the data itself, not on a lock file beside it that would stay: that
is why it is not one of `filelock`, as those of `mmembed.io.locks` are.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


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
            # Locked by its writer, gone by now, or not ours to remove.
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
