"""What each input was when a shard was made of it: one replaced under its name is noticed.

The sidecar of a shard holds under "fingerprints" for each key the SHA-256 of what its media were
before they were decoded: the bytes of a file or of a member of an archive, the values of a row of
features; behind a URL, what the server said of it (size, ETag, time). Copies of a corpus have the
same. `.shard-000000.seen` beside it holds size, times and inode that the files had: while these
are the same nothing is read again. Where they differ, since a file was touched, copied or moved,
its bytes decide. That file may be deleted: then all inputs are read once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.media.load import LARGEST_MEMBER, MediaSource, Source
from mmembed.data.shards.layout import shard_sidecar, uncommit
from mmembed.data.untrusted import archives
from mmembed.errors import DataError, MmembedError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps, parse_json
from mmembed.io.remote import file_state

Stamp: TypeAlias = list[int]
"""Bytes, time of the last change of the content and of the file in ns, inode."""

THREADS: Final = 8  # that read files or ask servers
NAMED: Final = 3  # inputs of a shard that a line names

_log: Final = logging.getLogger("mmembed.inputs")
_silent: Final[set[str]] = set()  # hosts that do not answer


def with_media(sources: Iterable[Source]) -> list[MediaSource]:
    """Those of which a file is read."""
    media = [source for source in sources if isinstance(source, MediaSource)]
    return [source for source in media if not source.is_text]


def _is_remote(source: MediaSource) -> bool:
    return "://" in str(source.utterance.media)


def _location(source: MediaSource) -> tuple[Path, str]:
    """The file it lies in, and the member or row of that, "" = it is the whole file."""
    media = str(source.utterance.media)
    file, _, member = media.rpartition("#")
    if file.endswith((*archives.SUFFIXES, SUFFIX)):
        return source.folder / file, member
    return source.folder / media, ""


@dataclass
class Fingerprints:
    """The fingerprints of the inputs of one shard.

    Attributes:
        digests: key -> what the sidecar keeps; None = there was nothing to read.
        stamps: key -> what its file was, where it is one.
    """

    digests: dict[str, str | None] = field(default_factory=dict)
    stamps: dict[str, Stamp] = field(default_factory=dict)

    def take(self, inputs: Iterable[MediaSource]) -> None:
        """Look at all of them. To be called before any is decoded: then what is replaced in the
        meantime differs from its fingerprint, too.
        """
        inputs = list(inputs)
        self.stamps |= {one.key: stamp for one in inputs if (stamp := _stamp(one)) is not None}
        self.digests |= _digests(inputs, self.stamps)

    def keep(self, tar: Path) -> None:
        """Write `.shard-000000.seen` of a committed shard."""
        held = {key: [*stamp, self.digests.get(key)] for key, stamp in self.stamps.items()}
        with atomic_file(_seen_path(tar)) as file:
            file.write(dumps(held, sort_keys=True).encode() + b"\n")


def changed_inputs(tar: Path, inputs: Iterable[MediaSource], *, note: bool = True) -> list[str]:
    """The media of a committed shard that are no longer those it was made of.

    A missing input has not changed: a shard outlives its inputs. Shards of older versions have
    no fingerprints.

    Args:
        tar: of the shard.
        inputs: of the same shard.
        note: whether to keep what was found out, for the next time.
    """
    sidecar = shard_sidecar(tar)
    known = (sidecar or {}).get("provenance", {}).get("fingerprints")
    if not isinstance(known, Mapping):
        return []
    now, seen, unsure = Fingerprints(), _read_seen(tar), []
    for one in inputs:
        if one.key not in known:
            continue
        stamp = _stamp(one)
        if stamp is not None:
            now.stamps[one.key] = stamp
            if seen.get(one.key) == [*stamp, known[one.key]]:
                now.digests[one.key] = known[one.key]
                continue
        if stamp is not None or _is_remote(one):
            unsure.append(one)
    found = _digests(unsure, now.stamps)
    now.digests |= found
    changed = [
        str(one.utterance.media) for one in unsure if found[one.key] not in (None, known[one.key])
    ]
    if unsure and note and not changed:
        now.keep(tar)
    return changed


def drop_if_changed(tar: Path, inputs: Iterable[MediaSource]) -> None:
    """Uncommit a shard whose inputs were replaced, and say so: it is made again."""
    if changed := changed_inputs(tar, inputs):
        named = ", ".join(changed[:NAMED]) + (", ..." if len(changed) > NAMED else "")
        message = "%s is made again: %d of its inputs changed since (%s)"
        _log.warning(message, ascii(str(tar))[1:-1], len(changed), ascii(named)[1:-1])
        uncommit(tar)


def _seen_path(tar: Path) -> Path:
    return tar.with_name(f".{tar.stem}.seen")


def _read_seen(tar: Path) -> Mapping[str, Any]:
    try:
        held = parse_json(_seen_path(tar).read_bytes())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _stamp(one: MediaSource) -> Stamp | None:
    """None where there is no file here, or one that cannot be read to its end."""
    path = _location(one)[0]
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    if _is_remote(one) or not stat.S_ISREG(found.st_mode) or not os.access(path, os.R_OK):
        return None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _digests(inputs: Sequence[MediaSource], stamps: Mapping[str, Stamp]) -> dict[str, str | None]:
    """Of each by its key; files and servers several at once."""

    def digest(one: MediaSource) -> str | None:
        if _is_remote(one):
            return _of_url(str(one.utterance.media))
        stamp = stamps.get(one.key)
        return None if stamp is None else _of_file(*_location(one), tuple(stamp))

    apart = [one for one in inputs if _is_remote(one) or not _location(one)[1]]
    found = {one.key: digest(one) for one in inputs if not _is_remote(one) and _location(one)[1]}
    with ThreadPoolExecutor(THREADS) as threads:
        found |= zip((one.key for one in apart), threads.map(digest, apart), strict=True)
    return found


def _of_url(url: str) -> str | None:
    host = urlsplit(url).netloc
    if host in _silent:
        return None
    try:
        return file_state(url)[0]
    except MmembedError as error:
        if isinstance(error, DataError) and error.reason == "unreachable":  # after all attempts
            _silent.add(host)
        return None


@lru_cache(4096)  # many rows may be of one file
def _of_file(path: Path, member: str, _stamp: tuple[int, ...]) -> str | None:
    try:
        if not member:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        if path.name.endswith(archives.SUFFIXES):
            return hashlib.sha256(archives.read_member(path, member, LARGEST_MEMBER)).hexdigest()
        digest = hashlib.sha256()
        for stream, values in sorted(read_features(path, int(member)).items()):
            digest.update(f"{stream} {values.dtype} {values.shape} ".encode() + values.tobytes())
        return digest.hexdigest()
    except (MmembedError, OSError, ValueError, MemoryError):
        return None
