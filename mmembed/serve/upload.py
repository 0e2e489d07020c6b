"""A clip that is uploaded: its bytes are counted as they arrive and go into a nameless file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from aiohttp import BodyPartReader, MultipartReader, web

from mmembed.config import Seconds

MAX_BYTES: Final = 500_000_000  # of a request, so nearly of a clip: the upload limit
MAX_TEXT: Final = 20_000  # bytes of UTF-8; 300 s of fast speech take a quarter of it
UPLOAD_TIMEOUT: Final[Seconds] = 600.0  # for a whole request
IDLE_TIMEOUT: Final[Seconds] = 60.0  # without a byte
CHUNK_BYTES: Final = 1 << 18


class RequestRefusedError(Exception):
    """A request that gets an HTTP status and a line instead of an answer."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status


@dataclass(frozen=True)
class Upload:
    """A clip that has arrived.

    Attributes:
        path: of its bytes, for this process and its children; valid while the file is open.
        name: the user's name of the file.
        text: its words, "" where they are not given.
    """

    path: Path
    name: str
    text: str


async def receive(request: web.Request, file: IO[bytes]) -> Upload:
    """Write the clip of a request, whose head has been checked, to a file without a name.

    Raises:
        RequestRefusedError: the request is too large, too slow, or damaged.
        OSError: the disk is full.
    """
    try:
        async with asyncio.timeout(UPLOAD_TIMEOUT):
            name, text = await _read(request, file)
    except TimeoutError:
        raise RequestRefusedError(408, f"took more than {UPLOAD_TIMEOUT:.0f} s to arrive") from None
    return Upload(Path(f"/proc/{os.getpid()}/fd/{file.fileno()}"), name, text)


def check_head(request: web.Request) -> None:
    """Refuse by its headers a request that need not be read.

    Raises:
        RequestRefusedError: it is no clip, or one that is too large.
    """
    if request.content_length is None:
        raise RequestRefusedError(411, "the request does not state its size")
    if request.content_length > MAX_BYTES:
        raise _too_large(request.content_length)
    if request.content_type != "multipart/form-data":
        raise RequestRefusedError(415, "a clip has to be sent as multipart/form-data")
    _check_encoding(request.headers)


async def _read(request: web.Request, file: IO[bytes]) -> tuple[str, str]:
    """Name and text; the clip's bytes go to the file."""
    with _damage():
        parts = await request.multipart()
    clip, text = None, None
    while (part := await _next(parts)) is not None:
        with _damage():
            field, name = part.name, part.filename
        _check_encoding(part.headers)
        if field == "clip" and clip is None:
            await _store(part, file)
            clip = " ".join((name or "clip").split())
        elif field == "text" and text is None:
            text = await _text(part)
        else:
            raise RequestRefusedError(400, "parts of the request are clip and text, each once")
    if clip is None:
        raise RequestRefusedError(400, "the request holds no clip")
    return clip, text or ""


async def _store(part: BodyPartReader, file: IO[bytes]) -> None:
    size = 0
    async for chunk in _chunks(part):
        size += len(chunk)
        if size > MAX_BYTES:
            raise _too_large(size)
        while chunk:  # a disk that is nearly full accepts only a part of it
            chunk = chunk[file.write(chunk) :]


async def _text(part: BodyPartReader) -> str:
    received = bytearray()
    async for chunk in _chunks(part):
        received += chunk
        if len(received) > MAX_TEXT:
            raise RequestRefusedError(413, f"the words are longer than {MAX_TEXT} bytes")
    return received.decode("utf-8", "replace").strip()


async def _next(parts: MultipartReader) -> BodyPartReader | None:
    with _damage():
        async with asyncio.timeout(IDLE_TIMEOUT):
            part = await parts.next()
    if isinstance(part, MultipartReader):
        raise RequestRefusedError(400, "a part of the request holds parts of its own")
    return part


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while not part.at_eof():
        with _damage():
            async with asyncio.timeout(IDLE_TIMEOUT):
                chunk = await part.read_chunk(CHUNK_BYTES)
        yield chunk


@contextmanager
def _damage() -> Iterator[None]:
    """Errors of the library that reads a request are the fault of the request."""
    try:
        yield
    except ConnectionError:
        raise
    except TimeoutError:
        raise RequestRefusedError(408, f"nothing arrived for {IDLE_TIMEOUT:.0f} s") from None
    except Exception:
        raise RequestRefusedError(400, "the request is damaged") from None


def _check_encoding(headers: Mapping[str, str]) -> None:
    """The limit counts the bytes that arrive, so nothing is decompressed or decoded here."""
    for name in ("Content-Encoding", "Content-Transfer-Encoding"):
        if headers.get(name, "binary").lower() not in ("binary", "identity", "7bit", "8bit"):
            raise RequestRefusedError(415, f"a clip has to be sent without a {name}")


def _too_large(size: int) -> RequestRefusedError:
    line = f"{size / 1e6:.0f} MB are too much, the limit is {MAX_BYTES / 1e6:.0f} MB"
    return RequestRefusedError(413, line)
