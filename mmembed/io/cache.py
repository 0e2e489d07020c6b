"""A folder of fetched files, bounded in bytes and shared by any number of processes.

The lock of a part is a flock on the part itself and goes with its name when it is renamed;
a lock of `filelock` would be one more file for each, which the limit would have to count.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from filelock import FileLock

from mmembed.errors import DataError, UsageError

LIMIT: Final = 50_000_000_000  # bytes, unless MMEMBED_CACHE_BYTES says otherwise
TIMEOUT: Final = 600.0  # seconds to wait for room that the fetches of others take up

_POLL: Final = 0.05  # seconds
_PART: Final = ".part"


class Descriptor:
    """An open file for `os.preadv`; it closes with its last user."""

    def __init__(self, path: Path) -> None:
        self.number = -1
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


@dataclass(frozen=True)
class Cache:
    """Whole files by name; those not used for longest make room for new ones.

    A file is fetched to `NAME.SIZE.part`, which its fetcher holds locked, and renamed when whole.
    Parts count with their final size, so that the limit holds at every moment; a part that is not
    locked was left by a killed process and is removed.

    Attributes:
        folder: of the files; made when needed.
        limit: bytes of all files together.
    """

    folder: Path
    limit: int

    @classmethod
    def default(cls) -> Cache:
        """The cache that MMEMBED_CACHE and MMEMBED_CACHE_BYTES describe.

        Raises:
            UsageError: the limit is not a whole number.
        """
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        limit = os.environ.get("MMEMBED_CACHE_BYTES") or str(LIMIT)
        if not limit.isdecimal():
            raise UsageError(f"MMEMBED_CACHE_BYTES={limit}: must be a whole number of bytes")
        return cls(Path(os.environ.get("MMEMBED_CACHE") or home / "mmembed"), int(limit))

    def open(self, name: str, size: int, fetch: Callable[[Path], None]) -> Descriptor:
        """Open a file, fetching it first where it is not there.

        Args:
            name: of the file; another content has another name.
            size: bytes it has.
            fetch: writes the content to a path, or raises.

        Raises:
            DataError: the file is larger than the whole cache, or others leave no room.
        """
        if size > self.limit:
            raise DataError(name, "too_large", self._too_small(size))
        until = time.monotonic() + TIMEOUT
        while True:
            with suppress(FileNotFoundError):
                file = Descriptor(self.folder / name)
                with suppress(PermissionError):  # a file that another user fetched
                    os.utime(file.number)  # the time of its last use
                return file
            part = self._start_part(name, size)
            if part is not None:
                with part:
                    self._fill(Path(part.name), self.folder / name, fetch)
            elif time.monotonic() > until:
                full = f"no room in {TIMEOUT:.0f} s: {self._too_small(size)}"
                raise DataError(name, "no_room", full)
            else:
                time.sleep(_POLL)

    def forget(self, name: str) -> None:
        """Remove a file."""
        (self.folder / name).unlink(missing_ok=True)

    def _fill(self, part: Path, final: Path, fetch: Callable[[Path], None]) -> None:
        try:
            fetch(part)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with self._lock():  # a file that is renamed meanwhile may not be counted
            part.replace(final)

    def _start_part(self, name: str, size: int) -> BinaryIO | None:
        """A locked empty part; None while another process fetches it or takes up the room."""
        with self._lock():
            if (self.folder / name).exists() or not self._make_room(name, size):
                return None
            part = (self.folder / f"{name}.{size}{_PART}").open("wb")
            fcntl.flock(part, fcntl.LOCK_EX)
            return part

    def _make_room(self, name: str, size: int) -> bool:
        used, files = size, []
        for path in self.folder.glob("[!.]*"):
            if path.suffix != _PART:
                with suppress(FileNotFoundError):  # found damaged by another process
                    status = path.stat()
                    used += status.st_size
                    files.append((status.st_mtime_ns, status.st_size, path))
            elif _left_behind(path):
                path.unlink(missing_ok=True)
            elif path.name == f"{name}.{size}{_PART}":
                return False
            else:
                used += int(path.stem.rpartition(".")[2])
        files.sort(reverse=True)
        while used > self.limit and files:
            _, freed, path = files.pop()
            path.unlink(missing_ok=True)
            used -= freed
        return used <= self.limit

    def _lock(self) -> FileLock:
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock", poll_interval=0.01, fallback_to_soft=False)

    def _too_small(self, size: int) -> str:
        return (
            f"takes {size} bytes, the cache {self.folder} {self.limit} in all; "
            "set MMEMBED_CACHE_BYTES to more"
        )


def _left_behind(part: Path) -> bool:
    """Whether the process that fetched this part has ended."""
    with part.open("ab") as file, suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
