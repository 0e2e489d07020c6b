"""Folders of shards behind a URL: listed, fetched whole into the cache, checked.

URLs are opened through fsspec, of the protocols in `PROTOCOLS` alone; nothing here runs a command
(`pipe:`) or follows a chain of URLs (`zip://...::http://...`).
"""

from __future__ import annotations

import errno
import hashlib
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Sequence
from operator import methodcaller
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import fsspec

from mmembed.errors import CorruptError, DataError, MmembedError, UsageError
from mmembed.io.cache import Cache, Descriptor

PROTOCOLS: Final = ("s3", "http", "https", "memory")

PAUSES: Final = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt

_AT_ONCE: Final = 32  # small files fetched together
_LIBRARIES: Final = ("aiohttp", "aiobotocore", "botocore", "fsspec", "s3fs")
_LATER: Final = (408, 429)  # HTTP: time-out, too many requests
_DISK_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_KNOWN: Final = re.compile(r"shard-.*\.(tar|json)|index\.arrow|manifest\.json")

T = TypeVar("T")


def as_url(folder: Path | str) -> str | None:
    """The URL meant, None for something on this machine.

    A `Path` made of a URL has lost one of its slashes; it is given back.

    Raises:
        UsageError: a URL of a protocol that is not allowed.
    """
    text = str(folder)
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", text)
    if match is None or Path(folder).exists():
        return None
    protocol = match[1].lower()
    rest = re.match(r"//?([^/].*)", text[match.end() :])
    if protocol not in PROTOCOLS or rest is None or "::" in text:
        raise UsageError(
            f"{text}: not on this machine, nor a URL that is allowed: {', '.join(PROTOCOLS)}"
        )
    try:
        _ = urlsplit(text).port
    except ValueError as error:
        raise UsageError(f"{text[: match.end()]}//...: not a URL ({error})") from None
    return f"{protocol}://{rest[1].rstrip('/')}"


def fetch_file(url: str) -> Descriptor:
    """Any one file behind a URL, fetched whole into the cache where that lacks it.

    Raises:
        UsageError: a URL of a protocol that is not allowed, or no credentials.
        DataError: there is no such file, or it cannot be reached.
    """
    name, size = file_state(url)
    return RemoteFolder(url)._open(name, "", size, None)


def file_state(url: str) -> tuple[str, int]:
    """A digest of what the server says of a file (size, ETag, time), and its bytes.

    Raises:
        UsageError, DataError: as `fetch_file`.
    """
    found = _file(url).stat()
    names = ("ETag", "LastModified", "mtime")
    state = [url, found["size"], *(str(found.get(name)) for name in names)]
    return hashlib.sha256(repr(state).encode()).hexdigest(), int(found["size"])


def read_head(url: str, count: int) -> tuple[bytes, int]:
    """The first bytes of a file behind a URL, and how many it has.

    Raises:
        UsageError, DataError: as `fetch_file`.
    """
    file = _file(url)
    return file.head(count), int(file.stat()["size"])


def _file(url: str) -> RemoteFolder:
    if as_url(url) is None:
        raise UsageError(f"{url}: not a URL")
    return RemoteFolder(url)


class RemoteFolder:
    """The files of a folder behind a URL; it holds no connection and can be forked and copied."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.name = re.sub("//[^/]*@", "//", url)  # in messages, without a password
        self._cache = Cache.default()

    def sizes(self) -> dict[str, int]:
        """Names of the shards' files and their bytes.

        Raises:
            DataError: there is no such folder, or it cannot be reached.
        """

        def list_files(files: Any) -> dict[str, int]:
            entries = {posixpath.basename(e["name"]): e for e in files.ls(self._url, detail=True)}
            entries = {name: e for name, e in entries.items() if _KNOWN.fullmatch(name)}
            sizes = {name: entry.get("size") for name, entry in entries.items()}
            unknown = [name for name, size in sizes.items() if size is None]  # a web page of links
            sizes |= zip(unknown, files.sizes([self._at(name) for name in unknown]), strict=True)
            return sizes

        return self._call(self.name, list_files)

    def stat(self) -> dict[str, Any]:
        """What the server says of the URL itself, where that is a file; its size at the least.

        Raises:
            DataError: the server does not say how large it is.
        """
        found: dict[str, Any] = self._call(self.name, methodcaller("info", self._url))
        if found.get("size") is None:
            raise DataError(self._url, "unreachable", "the server does not say how large it is")
        return found

    def head(self, count: int) -> bytes:
        """The first bytes of the URL itself, where that is a file."""
        cat = methodcaller("cat_file", self._url, start=0, end=count)
        return bytes(self._call(self.name, cat))[:count]

    def read(self, names: Sequence[str]) -> Iterator[bytes]:
        """The contents of small files, in their order."""
        for first in range(0, len(names), _AT_ONCE):
            some = names[first : first + _AT_ONCE]
            urls = [self._at(name) for name in some]
            found = self._call(f"{self.name}/{some[0]}", methodcaller("cat", urls))
            contents = {posixpath.basename(path): data for path, data in found.items()}
            yield from (contents[name] for name in some)

    def open_index(self, name: str, size: int, state: str) -> Descriptor:
        """The index of a state of the folder; `state` is a digest of it."""
        digest = hashlib.sha256(f"{self._url} {state}".encode()).hexdigest()
        return self._open(f"{digest}.arrow", name, size, None)

    def open_tar(self, name: str, size: int, sha256: str) -> Descriptor:
        """A tar, fetched and compared with its checksum where the cache lacks it."""
        return self._open(f"{sha256}.tar", name, size, sha256)

    def forget(self, sha256: str) -> bool:
        """Remove a tar from the cache: it is fetched again when it is read next."""
        self._cache.forget(f"{sha256}.tar")
        return True

    def _open(self, cached: str, name: str, size: int, sha256: str | None) -> Descriptor:
        def fetch(part: Path) -> None:
            self._call(f"{self.name}/{name}".rstrip("/"), lambda files: get(files, part))

        def get(files: Any, part: Path) -> None:
            files.get_file(self._at(name), str(part))
            found = part.stat().st_size
            if found != size:
                raise _Damaged(f"{found} bytes came, {size} were written")
            if sha256 is not None and _sha256(part) != sha256:
                raise _Damaged("its SHA-256 is not that of its index")

        return self._cache.open(cached, size, fetch)

    def _at(self, name: str) -> str:
        return f"{self._url}/{name}" if name else self._url

    def _files(self) -> Any:
        return _files(self._url)

    def _call(self, item: str, action: Callable[[Any], T]) -> T:
        """Do something, again after a pause where that may help.

        Raises:
            DataError, UsageError: it cannot be done, or not after the last pause.
            CorruptError: what came is damaged.
        """
        for pause in (*PAUSES, None):
            try:
                return action(self._files())
            except _Damaged as error:
                failure: MmembedError = CorruptError(f"{item}: damaged: {error}")
            except Exception as error:
                _raise_final(item, error)
                failure = DataError(item, "unreachable", f"{type(error).__name__}: {error}")
            if pause is None:
                raise failure
            time.sleep(pause)
        raise AssertionError


class _Damaged(Exception):
    """What came is not what was put there."""


def _files(url: str) -> Any:
    """The file system of a URL; fsspec keeps one for each process."""
    protocol = url.partition(":")[0]
    options: dict[str, object] = {"use_listings_cache": False}
    if protocol in ("http", "https"):  # a large file may take its time, a silent server may not
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        options["client_kwargs"] = {"timeout": timeout}
    return fsspec.filesystem(protocol, **options)


def _raise_final(item: str, error: Exception) -> None:
    """Raise, as one line, an error that another attempt would not change."""
    if isinstance(error, ImportError):
        raise UsageError(f"{item}: needs pip install 'mmembed[remote]' ({error})") from None
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        raise UsageError(
            f"{item}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE, or for a public bucket FSSPEC_S3_ANON=true"
        ) from None
    if isinstance(error, OSError) and (error.filename or error.errno in _DISK_FULL):
        raise error  # of this machine's disk
    if isinstance(error, FileNotFoundError):
        why = f"there is no such file, folder or bucket ({error})"
        raise DataError(item, "missing", why) from None
    status = int(getattr(error, "status", 0))
    if isinstance(error, PermissionError) or (400 <= status < 500 and status not in _LATER):
        raise DataError(item, "refused", f"the server refuses it ({error})") from None
    if not isinstance(error, OSError) and type(error).__module__.split(".")[0] not in _LIBRARIES:
        raise error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
