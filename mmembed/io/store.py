"""A folder of an object store to write to, and the folder here where its files are made first.

S3 puts an object whole or not at all, and refuses on demand to put one where there is one already
(`If-None-Match: *`) or another one than was seen (`If-Match`). Nothing else is needed of a store.
"""

from __future__ import annotations

import fcntl
import io
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import fsspec

from mmembed.errors import DataError
from mmembed.io.cache import Cache
from mmembed.io.locks import file_lock
from mmembed.io.remote import RemoteFolder

_UNMET: Final = {"IfNoneMatch": (412,), "IfMatch": (404, 412)}
"""Condition of a put -> HTTP status where it does not hold."""

T = TypeVar("T")


class Stored(NamedTuple):
    """An object: its bytes, what tells it from others of its name, what was put with it."""

    size: int
    etag: str
    metadata: dict[str, str]


class Store(RemoteFolder):
    """The objects below a prefix of a bucket, `s3://bucket/prefix`.

    Every method tries again after a pause where that may help, and raises

        UsageError: no credentials, or the library is not installed.
        DataError: there is no such bucket, or the server refuses.
        OSError: the store cannot be reached.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._bucket, _, prefix = url.partition("://")[2].partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    def list(self) -> dict[str, Stored]:
        """All objects by name, without what was put with them."""
        found: dict[str, Stored] = {}
        more: dict[str, str] = {}
        while True:
            options = {"Prefix": self._prefix, "Delimiter": "/", **more}
            page = self._ask("", "list_objects_v2", **options)
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(self._prefix)
                found[name] = Stored(entry["Size"], entry["ETag"], {})
            if not page.get("IsTruncated"):
                return found
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def info(self, name: str) -> Stored | None:
        """One object; None where there is none."""
        with suppress(_Missing):
            found = self._ask(name, "head_object", Key=self._prefix + name)
            return Stored(found["ContentLength"], found["ETag"], found["Metadata"])
        return None

    def get(self, name: str) -> bytes | None:
        """The content of a small object; None where there is none."""
        with suppress(_Missing):
            return bytes(self._call(self._item(name), lambda files: files.cat_file(self._at(name))))
        return None

    def put(self, name: str, body: bytes | Path) -> None:
        """Put an object, whatever was there."""
        self._put(name, body)

    def put_new(self, name: str, body: bytes | Path, **metadata: str) -> str | None:
        """Put an object where there is none.

        Args:
            name: of the object.
            body: its content, or the file that has it, which is not read into memory.
            metadata: a few short texts kept with it.

        Returns:
            Its ETag; None where one is there already. If an answer is lost, that may be this one.
        """
        return self._put(name, body, IfNoneMatch="*", Metadata=metadata)

    def replace(self, name: str, etag: str, body: bytes | Path, **metadata: str) -> str | None:
        """Put an object in place of the one that has this ETag; else as `put_new`."""
        return self._put(name, body, IfMatch=etag, Metadata=metadata)

    def delete(self, name: str) -> None:
        """Remove an object, if there is one."""
        self._ask(name, "delete_object", Key=self._prefix + name)

    def _put(self, name: str, body: bytes | Path, **options: object) -> str | None:
        place = {"Bucket": self._bucket, "Key": self._prefix + name}

        def put(files: Any) -> str | None:
            with body.open("rb") if isinstance(body, Path) else io.BytesIO(body) as file:
                try:
                    answer = files.call_s3("put_object", **place, Body=file, **options)
                except OSError as error:
                    if any(_status(error) in _UNMET.get(name, ()) for name in options):
                        return None
                    raise
                return str(answer["ETag"])

        return self._call(self._item(name), put)

    def _ask(self, name: str, method: str, **options: object) -> Any:
        def ask(files: Any) -> Any:
            return files.call_s3(method, Bucket=self._bucket, **options)

        return self._call(self._item(name), ask)

    def _item(self, name: str) -> str:
        return f"{self.name}/{name}".rstrip("/")

    def _call(self, item: str, action: Callable[[Any], T]) -> T:
        try:
            return super()._call(item, action)
        except DataError as error:
            if error.reason == "missing":
                raise _Missing(error.item, error.reason, error.message) from None
            if error.reason == "unreachable":
                raise OSError(f"{error}; the same command again goes on from here") from None
            raise

    def _files(self) -> Any:
        # Not that of readers, since it must not send again by itself a file read to its end.
        files = fsspec.filesystem("s3", use_listings_cache=False, default_fill_cache=False)
        files.retries = 1
        return files


class _Missing(DataError):
    """There is no such object or bucket."""


def _status(error: Exception) -> int:
    """The HTTP status that became an error of s3fs; 0 = it comes from elsewhere."""
    answer = getattr(error.__cause__, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def staging_folder() -> Iterator[Path]:
    """A folder of this process for files that are on their way to a store; it goes at the end.

    It lies in the cache folder. Those that killed processes left behind are removed first.
    """
    home = Cache.default().folder / ".staging"
    home.mkdir(parents=True, exist_ok=True)
    with file_lock(home / ".lock"):
        for folder in home.iterdir():
            if folder.is_dir():
                with suppress(BlockingIOError), _locked(folder):
                    shutil.rmtree(folder, ignore_errors=True)
        made = Path(tempfile.mkdtemp(dir=home))
        lock = _locked(made)
    with lock:
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)


def _locked(folder: Path) -> io.BufferedWriter:
    """A lock that lasts as long as this file is open.

    Raises:
        BlockingIOError: another process has it.
    """
    file = (folder / ".alive").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        file.close()
        raise
    return file
