"""What a user names on a command line, as examples: media files, folders, manifests, shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.dataset import Examples
from mmembed.data.example import Example
from mmembed.data.folders import MEDIA_SUFFIXES, media_below
from mmembed.data.manifest.jsonl import SUFFIXES, ManifestRow, read_each_row, to_row
from mmembed.data.manifest.utterance import Utterance, portable_key
from mmembed.data.media.decode import LONGEST, check_longest
from mmembed.data.media.pool import Decoder, Task
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.features.audio import FEATURE_RATE
from mmembed.features.text import normalise_transcript
from mmembed.features.video import VIDEO_RATE
from mmembed.io.remote import as_url


@dataclass(frozen=True)
class ClipSource:
    """One clip that may or may not turn out to be readable.

    Attributes:
        key: of the example, unique among different clips.
        name: what the user calls it: a path or a key.
        origin: what to decode, or how to read it from a shard.
    """

    key: str
    name: str
    origin: Task | Callable[[], Example]

    @property
    def header(self) -> ClipSource:
        """The same, not to be decoded: see `mmembed.data.media.header.look_at`."""
        if isinstance(self.origin, Task):
            return replace(self, origin=replace(self.origin, header=True))
        return (
            replace(self, origin=self.origin.look)
            if isinstance(self.origin, StoredExample)
            else self
        )


@dataclass(frozen=True)
class StoredExample:
    """A record of prepared shards, to be read when it is called.

    Attributes:
        examples: the folder it stands in.
        index: its place there.
    """

    examples: Examples
    index: int

    def __call__(self) -> Example:
        return self.examples[self.index]

    def look(self) -> Example:
        """As `mmembed.data.media.header.look_at`, of the index alone."""
        meta: Mapping[str, Any] = self.examples.meta(self.index)
        try:
            lengths, words = meta["lengths"], normalise_transcript(meta["transcript"] or "") or None
            streams = [stream for stream in STREAMS if lengths[stream]]
            seconds = max(lengths["audio"] / FEATURE_RATE, lengths["video"] / VIDEO_RATE) or None
        except (KeyError, TypeError) as error:
            key = self.examples.key(self.index)
            raise CorruptError(f"{key}: not a record of prepared features ({error})") from None
        utterance = Utterance(self.examples.key(self.index), None, transcript=meta["transcript"])
        held = words if "text" in streams else None
        return Example(utterance, text=held, notes={"streams": streams, "seconds": seconds})


@dataclass(frozen=True)
class Unusable:
    """What has no example, and why."""

    error: DataError

    def __call__(self) -> Example:
        raise self.error


def expand_inputs(inputs: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """What a user names: wildcards become the files and folders that they match, in sorted order,
    `-` the lines of a list. Wildcards with `**` match files alone.

    Args:
        inputs: as on a command line.
        listed: the lines that `-` stands for, taken as they are.

    Raises:
        UsageError: wildcards that match nothing, or in a URL; an empty list.
    """
    found: list[str] = []
    for name in inputs:
        if name == "-":
            names = [line.rstrip("\r\n").removeprefix("\ufeff") for line in listed]
            found += (there := [line for line in names if line])
            if not there:
                raise UsageError("-: the list of inputs is empty")
        elif not has_magic(name) or os.path.lexists(name):
            found.append(name)
        elif as_url(name) is not None:
            if "*" in name:
                raise UsageError(f"{name}: wildcards in URLs are not expanded; list the files")
            found.append(name)
        else:
            matched = sorted(glob(name, recursive=True))
            if "**" in name:
                matched = _each_once(path for path in matched if os.path.isfile(path))
            if not matched:
                raise UsageError(f"{name}: matches nothing")
            found += matched
    return found


def _each_once(paths: Iterable[str]) -> list[str]:
    """Files that wildcards meet again through links to folders, by the shortest of their names."""
    found: dict[str, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        place = os.path.join(os.path.realpath(folder), name)
        found[place] = min(found.get(place, path), path, key=lambda x: (x.count("/"), x))
    return sorted(found.values())


def check_keys(sources: Iterable[ClipSource]) -> None:
    """The key is all that tells one vector from another.

    Raises:
        UsageError: two clips share one.
    """
    seen: set[str] = set()
    for source in sources:
        if source.key in seen:
            raise UsageError(f"{source.name}: another clip has its key; name each clip once")
        seen.add(source.key)


def digest_of(sources: Iterable[ClipSource]) -> str:
    """SHA-256 of which clips these are: rows of manifests, names of files, checksums of shards."""
    digest = hashlib.sha256()
    for source in sources:
        origin = source.origin
        if isinstance(origin, Task):
            row = origin.utterance
            held: object = {**to_row(row), "media": row.media and without_secrets(row.media)}
        elif isinstance(origin, Unusable):
            held = origin.error.message
        else:
            held = [
                source.key,
                origin.examples.digest if isinstance(origin, StoredExample) else None,
            ]
        digest.update(json.dumps(held, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def open_sources(
    inputs: Iterable[Path | str],
    streams: tuple[str, ...] = STREAMS,
    face_model: Path | None = None,
    *,
    longest: Seconds = LONGEST,
) -> list[ClipSource]:
    """All clips named by `inputs`, in order; within a folder sorted by path.

    A `.jsonl` or `.parquet` file is a manifest, a folder with shards is read as shards, and so
    is one behind a URL; any other folder is searched for media files, and any other file is a clip,
    its key the path, as given, made portable. A URL that ends as media do is a clip, too; its key
    has neither a password nor what follows a `?`. Nothing is decoded yet.

    Args:
        inputs: files, folders and URLs; a URL with a query must be a string.
        streams: those wanted; others are not decoded.
        face_model: see `mmembed.features.video.face_crops`.
        longest: see `Task`.

    Raises:
        UsageError: a folder without any clip.
        DataError: a broken manifest.
    """
    check_longest(longest)
    sources: list[ClipSource] = []
    task = partial(Task, streams=streams, face_model=face_model, longest=longest)
    for name in inputs:
        path, url = Path(name), as_url(name)
        if url is not None and _suffix(url) in MEDIA_SUFFIXES:
            sources.append(_from_url(str(name), task))
        elif url is not None and _suffix(url) in SUFFIXES:
            raise UsageError(
                f"{without_secrets(url)}: a manifest must lie here; its media may be URLs"
            )
        elif path.is_dir() or url is not None:
            found = _from_folder(name, task)
            if not found:
                raise UsageError(
                    f"{name}: holds no clip, nothing called {' '.join(MEDIA_SUFFIXES[:6])} and so "
                    "on, and no shards"
                )
            sources += found
        elif path.suffix.lower() in SUFFIXES:
            sources += [_from_row(row, path, task) for row in read_each_row(path)]
        else:
            sources.append(_from_file(path, task))
    return sources


def load_all(sources: Sequence[ClipSource], decoder: Decoder) -> Iterator[Example | DataError]:
    """Load the sources one after another.

    Yields:
        For each, the example or why there is none, in a line that starts with the source's name.
    """
    origins = (source.origin for source in sources)
    decoded = decoder.load(origin for origin in origins if isinstance(origin, Task))
    for source in sources:
        found = next(decoded) if isinstance(source.origin, Task) else _read(source.origin)
        if isinstance(found, DataError) and found.item != source.name:
            message, secret = str(found), found.item
            found = DataError(
                source.name, found.reason, message.replace(secret, without_secrets(secret))
            )
        yield found


def _read(origin: Callable[[], Example]) -> Example | DataError:
    try:
        return origin()
    except DataError as error:
        return error


def _from_folder(folder: Path | str, task: Callable[[Utterance, Path], Task]) -> list[ClipSource]:
    if as_url(folder) is not None or any(Path(folder).glob("shard-*.tar")):
        examples = Examples([folder])
        keys = [examples.key(index) for index in range(len(examples))]
        return [
            ClipSource(key, key, StoredExample(examples, index)) for index, key in enumerate(keys)
        ]
    return [_from_file(Path(folder) / path, task) for path in media_below(Path(folder))]


def _from_row(
    row: ManifestRow, manifest: Path, task: Callable[[Utterance, Path], Task]
) -> ClipSource:
    if isinstance(row, DataError):
        return ClipSource(portable_key(row.item), row.item, Unusable(row))
    return ClipSource(row.key, row.key, task(row, manifest.parent))


def _from_url(url: str, task: Callable[[Utterance, Path], Task]) -> ClipSource:
    # As it was given: what follows the ? may be what lets us in.
    media = url if "://" in url else str(as_url(url))
    name = without_secrets(media)
    key = portable_key(name)
    return ClipSource(key, name, task(Utterance(key, media), Path()))


def without_secrets(media: str) -> str:
    """A URL without what may be secret: user and password, and all that follows a `?`."""
    if "://" not in media:
        return media
    try:
        parts = urlsplit(media)
    except ValueError:  # no URL, but what stands before the @ may be secret all the same
        return media[: media.index("://") + 3] + "..."
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def _suffix(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def _from_file(path: Path, task: Callable[[Utterance, Path], Task]) -> ClipSource:
    key = portable_key(str(path))
    return ClipSource(key, str(path), task(Utterance(key, str(path)), Path()))
