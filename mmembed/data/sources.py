"""What a user names on a command line, as examples: media files, folders, manifests, shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mmembed.data.dataset import Examples
from mmembed.data.example import Example
from mmembed.data.examples import example_from_file, load_example, portable_key
from mmembed.data.manifest import read_manifest
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
        load: decodes it; raises DataError.
    """

    key: str
    name: str
    load: Callable[[], Example]


def open_sources(inputs: Iterable[Path]) -> list[Source]:
    """All clips named by `inputs`, in order; within a folder sorted by path.

    A `.jsonl` file is a manifest, a folder with shards is read as shards, and so is one behind a
    URL; any other folder is searched for media files, and any other file is a clip. Nothing is
    decoded yet.

    Raises:
        UsageError: a folder without any clip.
        DataError: a broken manifest.
    """
    sources: list[Source] = []
    for path in inputs:
        if path.is_dir() or as_url(path) is not None:
            found = _from_folder(path)
            if not found:
                raise UsageError(
                    f"{path}: holds no clip (looked for {' '.join(MEDIA_SUFFIXES)} and shards)"
                )
            sources += found
        elif path.suffix == ".jsonl":
            sources += [
                Source(row.key, row.key, partial(load_example, row, path.parent))
                for row in read_manifest(path)
            ]
        else:
            sources.append(_from_file(path))
    return sources


def _from_folder(folder: Path) -> list[Source]:
    if as_url(folder) is not None or any(folder.glob("shard-*.tar")):
        examples = Examples([folder])
        keys = [examples.key(index) for index in range(len(examples))]
        return [
            Source(key, key, partial(examples.__getitem__, index)) for index, key in enumerate(keys)
        ]
    return [
        _from_file(path)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file()
    ]


def _from_file(path: Path) -> Source:
    return Source(portable_key(str(path)), str(path), partial(example_from_file, path))


def load_or_fail(source: Source) -> Example | DataError:
    """The example, or why there is none, in a line that starts with the source's name."""
    try:
        return source.load()
    except DataError as error:
        if error.item == source.name:
            return error
        return DataError(source.name, error.reason, str(error))
