"""Files that are either whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    sweep_temporaries(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


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
