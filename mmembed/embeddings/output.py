"""Where embedding shards go: a folder here, or one of an object store.

For a store they are made in a folder here, `io.store.staging_folder`, which looks like the one in
the store: an index where that has one, and for each tar a file of the same length without content,
which takes no space. A shard that is made here is put there at once, and its tar here is emptied.

The index is the commit there, too, and it must be that of the tar beside it, whichever process was
killed or faster, also where two machines round differently. So no tar is ever put in place of one
that may become part of a shard:

1. The index is put under a hidden name that has its SHA-256, `.shard-000000.SHA256.json`.
2. The tar is put where there is none; it is marked with that SHA-256. Where there is one, its mark
   says which index is its own: this one is committed, and what was made here is dropped. If that
   one is neither committed nor there under its hidden name, its shard was given up to be made
   again, and nobody can commit it any more: the tar is replaced, if it is still the same.
3. The index is put under its own name where there is none.

A shard is made again (its inputs changed, `--retry-failed`) by removing its index between 1 and 2,
when the new one is whole here.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from mmembed.data.shards.format import FOLDER_INDEX
from mmembed.data.shards.layout import is_committed, shard_path
from mmembed.data.shards.metadata import MANIFEST
from mmembed.data.shards.sidecar import parse_sidecar, read_sidecar
from mmembed.embeddings.plan import Plan
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.io.remote import as_url
from mmembed.io.store import Store, staging_folder
from mmembed.training.run_folder import is_run_folder, open_run_folder

Config: TypeAlias = Mapping[str, Any]
RUN: Final = "run.json"
LISTS: Final = ("failed.jsonl", MANIFEST, FOLDER_INDEX)  # made of all shards, in this order

_INDEX: Final = re.compile(r"shard-\d{6,}\.json")
_HIDDEN: Final = re.compile(r"\.shard-\d{6,}\.[0-9a-f]{64}\.json")  # see 1 above

log = logging.getLogger(__name__)


class Output:
    """A folder here: shards are where they have to be as soon as they are made.

    Attributes:
        folder: where they are made.
        name: what users call it.
        is_local: whether they stay there.
    """

    is_local = True

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def shown(self, folder: Path) -> str:
        """What users call a folder of one stream subset."""
        return str(folder)

    def is_committed(self, tar: Path) -> bool:
        """Whether a shard is there."""
        return is_committed(tar)

    def look(self, plan: Plan, numbers: Iterable[int]) -> None:
        """See what is there, before all that follows; `numbers` are of the shards to make."""

    def check(self, folder: Path, config: Config, mutable: Collection[str]) -> None:
        """As `is_run_folder`."""
        is_run_folder(folder, config, mutable)

    def claim(self, folder: Path, config: Config, mutable: Collection[str], part: str) -> None:
        """As `open_run_folder`."""
        open_run_folder(folder, config, mutable, part)

    def drop_changed(self, plan: Plan, numbers: Iterable[int]) -> None:
        """Have shards made again whose inputs changed."""
        plan.drop_changed(numbers)

    def commit(self, number: int) -> None:
        """To be called when the shards of a number are made."""

    def refresh(self, plan: Plan) -> None:
        """See what others made."""

    def publish(self) -> None:
        """To be called when the lists of all shards are made."""


@contextmanager
def open_output(out: Path) -> Iterator[Output]:
    """Where `--out` means shards to go.

    Raises:
        UsageError: a URL of something that cannot be written to.
        DataError, OSError: as `Store`.
    """
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", str(out)) or (url := as_url(out)) is None:
        yield Output(out)
        return
    if not url.startswith("s3://"):
        raise UsageError(f"--out {out}: embeddings are written to folders and to s3:// alone")
    Store(url).list()  # it fails at once where that would fail later
    with staging_folder() as folder:
        yield StoreOutput(url, folder)


class StoreOutput(Output):
    """A folder of an object store, with one for each stream subset in it or as that of all."""

    is_local = False

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(folder)
        self._url, self.name = url, Store(url).name
        self._mirrors: dict[Path, _Mirror] = {}

    def shown(self, folder: Path) -> str:
        return self._mirrors[folder].store.name

    def is_committed(self, tar: Path) -> bool:
        return self._mirrors[tar.parent].has(tar)

    def look(self, plan: Plan, numbers: Iterable[int]) -> None:
        names = [shard_path(Path(), number).with_suffix(".json").name for number in numbers]
        for folder in plan.folders:
            place = folder.relative_to(self.folder)
            url = self._url if place == Path() else f"{self._url}/{place}"
            mirror = self._mirrors.setdefault(folder, _Mirror(folder, Store(url)))
            mirror.look()
            mirror.fetch([name for name in names if name in mirror.there])
            mirror.fetch_run()

    def check(self, folder: Path, config: Config, mutable: Collection[str]) -> None:
        try:
            super().check(folder, config, mutable)
        except UsageError as error:
            raise UsageError(str(error).replace(str(folder), self.shown(folder))) from None

    def claim(self, folder: Path, config: Config, mutable: Collection[str], part: str) -> None:
        self.check(folder, config, mutable)
        super().claim(folder, config, mutable, part)
        if self._mirrors[folder].claim():  # another process was faster
            self.check(folder, config, mutable)

    def drop_changed(self, plan: Plan, numbers: Iterable[int]) -> None:
        """Those there stay until new ones are whole."""
        for number in numbers:
            for folder in plan.changed(number):
                plan.renew(shard_path(folder, number))
                name = f"{self.shown(folder)}/{shard_path(folder, number).name}"
                log.warning("%s is made again: its inputs changed since", ascii(name)[1:-1])

    def commit(self, number: int) -> None:
        for folder, mirror in self._mirrors.items():
            mirror.commit(shard_path(folder, number))

    def refresh(self, plan: Plan) -> None:
        for folder, mirror in self._mirrors.items():
            mirror.look()
            if all(mirror.has(shard_path(folder, number)) for number in plan.numbers):
                mirror.fetch([*mirror.there])

    def publish(self) -> None:
        for mirror in self._mirrors.values():
            mirror.publish()


class _Mirror:
    """A folder here that looks like one of a store.

    Attributes:
        folder: here.
        store: there.
        there: the indices there, name -> ETag.
    """

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.there: dict[str, str] = {}
        self._here: dict[str, _Index] = {}  # those that are here, too
        self._left: list[str] = []  # hidden ones there
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, tar: Path) -> bool:
        """Whether a shard is committed there."""
        return tar.with_suffix(".json").name in self.there

    def look(self) -> bool:
        """See what is there; whether an index is no longer the one that is here.

        Raises:
            CorruptError: an index there has no tar.
        """
        found = self.store.list()
        self.there = {name: found[name].etag for name in found if _INDEX.fullmatch(name)}
        for name in self.there:
            tar = (self.folder / name).with_suffix(".tar")
            if tar.name not in found:
                raise CorruptError(
                    f"{self.store.name}/{tar.name}: missing, its index {name} is there; delete that"
                )
            _hollow(tar, found[tar.name].size)
        self._left = [name for name in found if _HIDDEN.fullmatch(name)]
        gone = [name for name, own in self._here.items() if self.there.get(name) != own.etag]
        for name in gone:
            (self.folder / name).unlink(missing_ok=True)
            del self._here[name]
        self.fetch([name for name in gone if name in self.there])
        return bool(gone)

    def fetch(self, names: Collection[str]) -> None:
        """Get those of these indices that are not here.

        Raises:
            CorruptError: one of them is damaged, or its tar is of another size.
        """
        wanted = [name for name in names if name not in self._here]
        try:
            for name, data in zip(wanted, self.store.read(wanted), strict=True):
                size = (self.folder / name).with_suffix(".tar").stat().st_size
                read_sidecar(f"{self.store.name}/{name}", data, size)
                self._keep(name, data, self.there[name])
        except DataError as error:
            if error.reason != "missing":
                raise
            self.look()  # since another process makes its shard again

    def claim(self) -> bool:
        """Put the run.json that is here where there is none; whether another one is there, which
        is here now.

        Raises:
            UsageError: the store heeds no conditions.
        """
        path = self.folder / RUN
        for _ in range(2):  # the second time there is one
            put = self.store.put_new(RUN, path.read_bytes())
        here = path.read_bytes()
        self.fetch_run()
        there = path.read_bytes()
        if put is not None or self.store.replace(RUN, '"another"', there) is not None:
            raise UsageError(
                f"{self.store.name}: the store, or the library s3fs, knows no conditional writes "
                "(If-None-Match, If-Match), which keep processes from destroying what others wrote"
            )
        return there != here

    def fetch_run(self) -> None:
        """Get run.json, where there is one."""
        if (data := self.store.get(RUN)) is not None:
            (self.folder / RUN).write_bytes(data)

    def commit(self, tar: Path) -> None:
        """Put a shard there that was made here, and empty its tar; where another process was
        faster, its shard stays.
        """
        name = tar.with_suffix(".json").name
        if not (self.folder / name).exists():
            return
        made = (self.folder / name).read_bytes()
        if name not in self._here or self._here[name].sha256 != _sha256(made):
            committed, etag = self._commit(tar, made)
            if committed != made:
                log.warning("%s/%s: another process made it, too", self.store.name, tar.name)
            self._keep(name, committed, etag)
        _hollow(tar, parse_sidecar(name, (self.folder / name).read_bytes())["bytes"])

    def _commit(self, tar: Path, made: bytes) -> tuple[bytes, str]:
        """The index that is there in the end, and its ETag, "" = not known."""
        name, hidden = f"{tar.stem}.json", _hidden(tar, _sha256(made))
        if name not in self.there and (committed := self.store.get(name)) is not None:
            return committed, ""
        self.store.put(hidden, made)
        if name in self.there:
            self.store.delete(FOLDER_INDEX)
            self.store.delete(name)
        while True:
            index = self._put_tar(tar, made)
            etag = None if index is None else self.store.put_new(name, index)
            if index is None or etag is None:
                index, etag = self.store.get(name), ""
            if index is not None:
                break
        for each in {hidden, _hidden(tar, _sha256(index))}:
            self.store.delete(each)
        return index, etag

    def _put_tar(self, tar: Path, made: bytes) -> bytes | None:
        """Put a tar where there is none; the index of the one that is there in the end, None where
        that is committed.
        """
        mark = _sha256(made)
        while self.store.put_new(tar.name, tar, index=mark) is None:
            if (there := self.store.info(tar.name)) is None:  # removed since
                continue
            other = there.metadata.get("index", "")
            if other == mark:
                break
            if (index := self.store.get(_hidden(tar, other))) is not None:
                return index
            if self.store.info(f"{tar.stem}.json") is not None:
                return None
            if self.store.replace(tar.name, there.etag, tar, index=mark) is not None:
                break
        return made

    def publish(self) -> None:
        """Put the lists of all shards there, and remove what killed processes left."""
        for name in LISTS:
            self.store.put(name, self.folder / name)
        if self.look():  # another process makes shards again; it will list them
            self.store.delete(FOLDER_INDEX)
        for name in self._left:
            self.store.delete(name)

    def _keep(self, name: str, data: bytes, etag: str) -> None:
        (self.folder / name).write_bytes(data)
        self.there[name] = etag
        self._here[name] = _Index(etag, _sha256(data))


class _Index(NamedTuple):
    """What tells an index from another one of its name."""

    etag: str
    sha256: str


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hidden(tar: Path, mark: str) -> str:
    return f".{tar.stem}.{mark}.json"


def _hollow(tar: Path, size: int) -> None:
    """A file of this length without content."""
    with tar.open("wb") as file:
        file.truncate(size)
