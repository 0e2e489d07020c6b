"""Uncompressed sound whose header is wrong or was never finished: what is there is read.

Headers of wav, aiff, au, caf and w64 files say how many bytes of samples follow. Recorders that
crash or write to a pipe leave 0 or the largest number there, others are off by a few bytes. What
decodes them believes that; here it is compared with the file, and put right on the way.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, NamedTuple

from mmembed.errors import DataError

SLACK: Final = 64  # bytes; headers that are off by a few count themselves
LEAST_MORE: Final = 4096  # bytes behind the samples that are samples too, unless they are chunks
UNFINISHED: Final = 0x7FFF0000  # bytes; headers of unfinished recordings claim more
_W64_DATA: Final = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
_TAGS: Final = (b"TAG", b"ID3")

Order = Literal["big", "little"]


class _Samples(NamedTuple):
    """Where the samples lie.

    Attributes:
        first: the first byte of them.
        stated: bytes of them as the header says.
        field: where that number stands.
        width: bytes of the number.
        order: of its bytes.
        counted: bytes before `first` that the number counts too.
        chunks: whether chunks may follow, each with 4 letters and a number of 4 bytes; None: chunks
            of another form.
    """

    first: int
    stated: int
    field: int
    width: int
    order: Order
    counted: int = 0
    chunks: bool | None = None


def open_repaired(path: Path, data: bytes | None = None) -> BinaryIO | None:
    """A file of uncompressed sound, its header brought in line with what is there.

    Args:
        path: of the file.
        data: its bytes where it is part of another.

    Returns:
        The file, to be closed by the caller; None where the header is right as it is.

    Raises:
        DataError: with reason "damaged": samples are missing at its end.
        OSError: it cannot be opened.
    """
    with ExitStack() as stack:
        file = path.open("rb") if data is None else io.BytesIO(data)
        stack.enter_context(file)
        size = file.seek(0, io.SEEK_END)
        samples = _find(file, size)
        count = None if samples is None else _count(file, samples, size)
        if samples is None or count is None:
            return None
        there = size - samples.first
        if count > there + SLACK:
            why = f"{there} of {count} bytes of samples are there"
            raise DataError(str(path), "damaged", f"cannot be decoded ({why})")
        count = min(count, there)
        if count == samples.stated:
            return None
        number = min(count + samples.counted, 256**samples.width - 1)
        patch = number.to_bytes(samples.width, samples.order)
        stack.pop_all()
        return io.BufferedReader(_Patched(file, samples.field, patch))


def _count(file: BinaryIO, samples: _Samples, size: int) -> int | None:
    """How many bytes of samples there should be; None: no header says so, and none are there."""
    there, limit = size - samples.first, UNFINISHED if samples.width == 4 else 1 << 62
    if samples.stated <= 0 or samples.stated >= limit:
        empty = samples.stated == 0 and _is_no_sample(file, samples, samples.first, size)
        return None if empty else there
    end = samples.first + samples.stated + samples.stated % 2
    if samples.chunks is not None and size - end > LEAST_MORE:
        return samples.stated if _is_no_sample(file, samples, end, size) else there
    return samples.stated


def _is_no_sample(file: BinaryIO, samples: _Samples, at: int, size: int) -> bool:
    """Whether all that lies from `at` on are chunks or tags."""
    if not samples.chunks:
        return at >= size
    for name, start, length in _walk(file, at, size, samples.order):
        if name.startswith(_TAGS):
            return True
        if not all(32 <= letter < 127 for letter in name) or start + length > size:
            return False
    return True


def _find(file: BinaryIO, size: int) -> _Samples | None:
    file.seek(0)
    head = file.read(32)
    if head[8:12] == b"WAVE" and head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _in_riff(file, size, "big" if head[:4] == b"RIFX" else "little")
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        for name, at, length in _walk(file, 12, size, "big"):
            if name == b"SSND":
                file.seek(at + 8)
                first = at + 16 + int.from_bytes(file.read(4), "big")
                before = first - at - 8
                return _Samples(first, length - before, at + 4, 4, "big", before, True)
    if head[:4] == b".snd":
        first, stated = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
        return _Samples(first, stated, 8, 4, "big", chunks=False)
    if head[:4] == b"caff":
        return _in_caf(file, size)
    if head[:4] == b"riff":
        return _in_w64(file, size)
    return None


def _in_riff(file: BinaryIO, size: int, order: Order) -> _Samples | None:
    long = None
    for name, at, length in _walk(file, 12, size, order):
        if name == b"ds64":
            file.seek(at + 16)
            long = _Samples(0, int.from_bytes(file.read(8), "little"), at + 16, 8, order, 0, True)
        if name == b"data":
            if long is not None and length == 0xFFFFFFFF:
                return long._replace(first=at + 8)
            return _Samples(at + 8, length, at + 4, 4, order, 0, True)
    return None


def _walk(file: BinaryIO, at: int, size: int, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and length of each chunk."""
    while at + 8 <= size:
        file.seek(at)
        head = file.read(8)
        length = int.from_bytes(head[4:], order)
        yield head[:4], at, length
        at += 8 + length + length % 2


def _in_caf(file: BinaryIO, size: int) -> _Samples | None:
    at = 8
    while at + 16 <= size:
        file.seek(at)
        head = file.read(12)
        length = int.from_bytes(head[4:], "big", signed=True)
        if head[:4] == b"data":  # starts with a number of edits
            return _Samples(at + 16, length - 4 if length > 0 else length, at + 4, 8, "big", 4)
        if length < 0:
            return None
        at += 12 + length
    return None


def _in_w64(file: BinaryIO, size: int) -> _Samples | None:
    at = 40
    while at + 24 <= size:
        file.seek(at)
        head = file.read(24)
        length = int.from_bytes(head[16:], "little")
        if head[:16] == _W64_DATA:
            stated = length - 24 if length > 24 else 0
            return _Samples(at + 24, stated, at + 16, 8, "little", 24)
        if length < 24:
            return None
        at += (length + 7) // 8 * 8
    return None


class _Patched(io.RawIOBase):
    """A file some bytes of which read as others."""

    def __init__(self, file: BinaryIO, at: int, patch: bytes) -> None:
        super().__init__()
        self._file, self._at, self._patch = file, at, patch

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        start = self._file.tell()
        data = self._file.read(len(view))
        view[: len(data)] = data
        for n, byte in enumerate(self._patch, self._at - start):
            if 0 <= n < len(data):
                view[n] = byte
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
