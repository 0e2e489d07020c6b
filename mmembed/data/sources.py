"""What a user names on a command line, as examples: media files, folders, manifests, shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mmembed.batch import STREAMS
from mmembed.data.dataset import Examples
from mmembed.data.decoding import Decoder, Task
from mmembed.data.example import Example, Utterance
from mmembed.data.examples import portable_key
from mmembed.data.manifest import SUFFIXES, read_manifest
from mmembed.data.remote import as_url
from mmembed.errors import DataError, UsageError

MEDIA_SUFFIXES: Final = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv",
    ".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """One clip that may or may not turn out to be readable.

    Attributes:
        key: of the example, unique among different clips.
        name: what the user calls it: a path or a key.
        origin: what to decode, or how to read it from a shard.
    """

    key: str
    name: str
    origin: Task | Callable[[], Example]


def open_sources(
    inputs: Iterable[Path],
    streams: tuple[str, ...] = STREAMS,
    face_model: Path | None = None,
    *,
    long: bool = False,
) -> list[Source]:
    """All clips named by `inputs`, in order; within a folder sorted by path.

    A `.jsonl` or `.parquet` file is a manifest, a folder with shards is read as shards, and so
    is one behind a URL; any other folder is searched for media files, and any other file is a clip,
    its key the path, as given, made portable. Nothing is decoded yet.

    Args:
        inputs: files and folders.
        streams: those wanted; others are not decoded.
        face_model: see `mmembed.features.video.face_crops`.
        long: see `Task`.

    Raises:
        UsageError: a folder without any clip.
        DataError: a broken manifest.
    """
    sources: list[Source] = []
    task = partial(Task, streams=streams, face_model=face_model, long=long)
    for path in inputs:
        if path.is_dir() or as_url(path) is not None:
            found = _from_folder(path, task)
            if not found:
                raise UsageError(
                    f"{path}: holds no clip (looked for {' '.join(MEDIA_SUFFIXES)} and shards)"
                )
            sources += found
        elif path.suffix in SUFFIXES:
            sources += [
                Source(row.key, row.key, task(row, path.parent)) for row in read_manifest(path)
            ]
        else:
            sources.append(_from_file(path, task))
    return sources


def load_all(sources: Sequence[Source], decoder: Decoder) -> Iterator[Example | DataError]:
    """Load the sources one after another.

    Yields:
        For each, the example or why there is none, in a line that starts with the source's name.
    """
    origins = (source.origin for source in sources)
    decoded = decoder.load(origin for origin in origins if isinstance(origin, Task))
    for source in sources:
        found = next(decoded) if isinstance(source.origin, Task) else _read(source.origin)
        if isinstance(found, DataError) and found.item != source.name:
            found = DataError(source.name, found.reason, str(found))
        yield found


def _read(origin: Callable[[], Example]) -> Example | DataError:
    try:
        return origin()
    except DataError as error:
        return error


def _from_folder(folder: Path, task: Callable[[Utterance, Path], Task]) -> list[Source]:
    if as_url(folder) is not None or any(folder.glob("shard-*.tar")):
        examples = Examples([folder])
        keys = [examples.key(index) for index in range(len(examples))]
        return [
            Source(key, key, partial(examples.__getitem__, index)) for index, key in enumerate(keys)
        ]
    return [
        _from_file(path, task)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()
    ]


def _from_file(path: Path, task: Callable[[Utterance, Path], Task]) -> Source:
    key = portable_key(str(path))
    return Source(key, str(path), task(Utterance(key, str(path)), Path()))
