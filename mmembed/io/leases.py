"""Who makes what, agreed upon by files in a shared folder: a claim that is not renewed runs out.

For work whose result is the same in any process: one that was stopped for long and goes on
may do what another one has taken over, and nothing is lost by that. A lock of the system
(`mmembed.io.locks`) would hold as long as such a process lives, and is not seen by all network file
systems.
"""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from mmembed.config import Seconds

LEASE: Final[Seconds] = 60.0  # after which others may take what was claimed
RENEWALS: Final = 4  # in a lease


class Leases:
    """The claims of this process; use as a context manager, which renews them in a thread.

    Ages are differences between times that the file system gave: clocks of machines do not matter.

    Args:
        folder: which all processes see; is made.
        seconds: after which a claim that was not renewed runs out; the same for all.
    """

    def __init__(self, folder: Path, seconds: Seconds = LEASE) -> None:
        self._folder, self._seconds = folder, seconds
        self._name = secrets.token_hex(8)
        self._held: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        for name in [*self._held]:
            self.release(name)
        self._clock.unlink(missing_ok=True)

    def take(self, name: str) -> bool:
        """Claim a piece of work; False where another one has it."""
        path = self._path(name)
        for _ in range(2):
            try:
                with path.open("x") as file:
                    file.write(self._name)
            except FileExistsError:
                if not self._remove_if_old(path):
                    return False
                continue
            self._held.add(name)
            return True
        return False  # another one was faster

    def release(self, name: str) -> None:
        """Give a claim up, if it is still ours."""
        self._held.discard(name)
        path = self._path(name)
        with suppress(FileNotFoundError):
            if path.read_text() == self._name:
                path.unlink()

    @property
    def _clock(self) -> Path:
        return self._folder / f".{self._name}.clock"

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.lease"

    def _age(self, path: Path) -> Seconds:
        self._clock.write_bytes(b"")
        return self._clock.stat().st_mtime - path.stat().st_mtime

    def _remove_if_old(self, path: Path) -> bool:
        """Whether there is no claim any more."""
        moved = self._folder / f".{path.name}.{self._name}"
        try:
            if self._age(path) <= self._seconds:
                return False
            path.rename(moved)  # one of all who see that it is old can
        except FileNotFoundError:  # it was given up, or taken
            return not path.exists()
        fresh = self._age(moved) <= self._seconds
        if fresh:  # of another one, who was faster still
            with suppress(FileExistsError):
                os.link(moved, path)
        moved.unlink()
        return not fresh

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / RENEWALS):
            for name in [*self._held]:
                path = self._path(name)
                with suppress(OSError):
                    if path.read_text() == self._name:
                        os.utime(path)
