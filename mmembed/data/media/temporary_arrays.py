"""Arrays that lie on disk: features of long recordings, which memory need not hold."""

from __future__ import annotations

import mmap
import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmembed.errors import UsageError


class TemporaryArray:
    """An array that is written part by part to a file without a name; it goes with the array.

    The file lies in TMPDIR, by default in /var/tmp, since /tmp is memory on many machines.
    """

    def __init__(self) -> None:
        self._folder = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        except OSError as error:
            raise UsageError(self._failure(error)) from None
        self._length = 0
        self._last: NDArray[Any] | None = None

    def add(self, part: NDArray[Any]) -> None:
        """Append steps (T, ...), T at least 1, of the same type and shape each time.

        Raises:
            OSError: the disk is full.
        """
        try:
            self._file.write(np.ascontiguousarray(part).data)
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, self._failure(error)) from None
        self._length += len(part)
        self._last = part[:0]

    def finish(self) -> NDArray[Any]:
        """All parts as one array, memory-mapped; what is written to it stays in memory."""
        assert self._last is not None
        shape = (self._length, *self._last.shape[1:])
        return np.memmap(self._file, self._last.dtype, "c", shape=shape)

    def _failure(self, error: OSError) -> str:
        return (
            f"{self._folder}: the features of a long recording cannot be kept there "
            f"({error.strerror}); set TMPDIR to a folder with room, 490 MB an hour of video, "
            "13 GB where crops are 224 pixels RGB"
        )


def release(array: NDArray[Any] | None) -> None:
    """Give back the memory that reading a memory-mapped array has taken; other arrays stay."""
    if isinstance(array, np.memmap) and isinstance(array.base, mmap.mmap):
        array.base.madvise(mmap.MADV_DONTNEED)
