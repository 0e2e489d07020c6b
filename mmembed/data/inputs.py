"""What a user names on a command line, as sources: media files, folders, manifests, shards."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from glob import glob, has_magic
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn, TypeAlias
from urllib.parse import urlsplit

from mmembed.config import Seconds
from mmembed.data.corpora import wds
from mmembed.data.dataset import Examples
from mmembed.data.example import LONGEST
from mmembed.data.folders import MEDIA_SUFFIXES, media_below
from mmembed.data.manifest.jsonl import SUFFIXES, ManifestRow, each_row
from mmembed.data.manifest.utterance import Utterance, portable_key, to_row, without_secrets
from mmembed.data.media.load import MediaSource, ProbeResult, ReadySource, Source
from mmembed.data.media.streaming import check_longest
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.text import normalise_transcript
from mmembed.features.video import SMALL_GREY, VIDEO_RATE, CropForm
from mmembed.io.remote import as_url
from mmembed.streams import STREAMS

MakeSource: TypeAlias = Callable[..., MediaSource]


def expand_inputs(inputs: Iterable[str], listed: Iterable[str] = ()) -> list[str]:
    """What a user names: wildcards become the files and folders that they match, in sorted order,
    `-` the lines of a list. Wildcards with `**` match files alone.

    Args:
        inputs: as on a command line.
        listed: the lines that `-` stands for, taken as they are.

    Raises:
        UsageError: wildcards that match nothing, or in a URL; an empty list.
    """
    names: list[str] = []
    for name in inputs:
        if name == "-":
            lines = [line.rstrip("\r\n").removeprefix("\ufeff") for line in listed]
            names += (lines := [line for line in lines if line])
            if not lines:
                raise UsageError("-: the list of inputs is empty")
        elif not has_magic(name) or os.path.lexists(name):
            names.append(name)
        elif as_url(name) is not None:
            if "*" in name:
                raise UsageError(f"{name}: wildcards in URLs are not expanded; list the files")
            names.append(name)
        else:
            matched = sorted(glob(name, recursive=True))
            if "**" in name:
                matched = _each_once(path for path in matched if os.path.isfile(path))
            if not matched:
                raise UsageError(f"{name}: matches nothing")
            names += matched
    return names


def _each_once(paths: Iterable[str]) -> list[str]:
    """Files that wildcards meet again through links to folders, by the shortest of their names."""
    shortest: dict[str, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        location = os.path.join(os.path.realpath(folder), name)
        shortest[location] = min(
            shortest.get(location, path), path, key=lambda x: (x.count("/"), x)
        )
    return sorted(shortest.values())


def check_keys(sources: Iterable[Source]) -> None:
    """Two vectors are told apart by their keys alone.

    Raises:
        UsageError: two clips share one.
    """
    seen: set[str] = set()
    for source in sources:
        if source.key in seen:
            raise UsageError(f"{source.name}: another clip has its key; name each clip once")
        seen.add(source.key)


def digest_of(sources: Iterable[Source]) -> str:
    """SHA-256 of which clips these are: rows of manifests, names of files, checksums of shards."""
    digest = hashlib.sha256()
    for source in sources:
        if isinstance(source, MediaSource):
            row = source.utterance
            identity: object = {**to_row(row), "media": row.media and without_secrets(row.media)}
        else:
            identity = source.identity
        digest.update(json.dumps(identity, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def open_sources(
    inputs: Iterable[Path | str],
    streams: tuple[str, ...] = STREAMS,
    face_model: Path | None = None,
    *,
    longest: Seconds = LONGEST,
    crops: CropForm = SMALL_GREY,
    any_crops: bool = False,
) -> list[Source]:
    """All clips named by `inputs`, in order; within a folder sorted by path.

    A `.jsonl` or `.parquet` file is a manifest, a folder with shards is read as shards, and so
    is one behind a URL; any other folder is searched for media files, or else for tars of others in
    the format of WebDataset, which may also be named; any other file is a clip,
    its key the path, as given, made portable. A URL that ends as media do is a clip, too; its key
    has neither a password nor what follows a `?`. Nothing is decoded yet.

    Args:
        inputs: files, folders and URLs; a URL with a query must be a string.
        streams: those wanted; others are not decoded.
        face_model: see `mmembed.features.video.face_crops`.
        longest: see `MediaSource`.
        crops: form of the face crops.
        any_crops: take those of shards as they are, whatever their form, as long as it is one.

    Raises:
        UsageError: a folder without any clip, shards with crops of another form, or of several.
        DataError: a broken manifest.
    """
    check_longest(longest)
    sources: list[Source] = []
    forms: dict[CropForm, str] = {}  # of face crops -> the first that has them
    how: dict[str, Any] = {"face_model": face_model, "longest": longest, "crops": crops}
    make: MakeSource = partial(MediaSource, streams=streams, **how)
    for name in inputs:
        path, url = Path(name), as_url(name)
        if url is not None and _suffix(url) in MEDIA_SUFFIXES:
            # As it was given: what follows the ? may be what lets us in.
            media = str(name) if "://" in str(name) else str(url)
            shown = without_secrets(media)
            sources.append(make(Utterance(portable_key(shown), media), Path(), name=shown))
        elif url is not None and _suffix(url) in SUFFIXES:
            raise UsageError(
                f"{without_secrets(url)}: a manifest must lie here; its media may be URLs"
            )
        elif path.is_dir() or url is not None:
            if url is not None or any(path.glob("shard-*.tar")):
                examples = Examples([name])
                if "video" in streams and examples.numbers("lengths.video").any():
                    if not any_crops:
                        examples.check_crops(crops)
                    forms.setdefault(examples.crops, str(name))
                found = [_stored(examples, index) for index in range(len(examples))]
            else:
                found = [_from_file(path / file, make) for file in media_below(path)]
                found = found or _foreign(path, make)
            if not found:
                raise UsageError(
                    f"{name}: holds no clip, nothing called {' '.join(MEDIA_SUFFIXES[:6])} and so "
                    "on, and no shards"
                )
            sources += found
        elif path.suffix.lower() == wds.SUFFIX:
            if path.with_suffix(".json").is_file():
                raise UsageError(f"{name}: a shard of ours; name its folder")
            sources += _foreign(path, make)
        elif path.suffix.lower() in SUFFIXES:
            sources += [_from_row(row, path, make) for row in each_row(path)]
        else:
            sources.append(_from_file(path, make))
    for source in sources:
        if isinstance(source, MediaSource) and source.utterance.media and "video" in streams:
            forms.setdefault(crops, source.name)
    if len(forms) > 1:
        (one, first), (other, second) = list(forms.items())[:2]
        raise UsageError(
            f"{first}: face crops of {one}, {second}: of {other}; give those of one form at once"
        )
    return sources


def _stored(examples: Examples, index: int) -> Source:
    """A record of prepared shards."""
    key = examples.key(index)
    read, look = partial(examples.__getitem__, index), partial(_probe_stored, examples, index)
    return ReadySource(key, key, read, look, [key, examples.digest])


def _probe_stored(examples: Examples, index: int) -> ProbeResult:
    """What the index of the shards says of a record."""
    meta: Mapping[str, Any] = examples.meta(index)
    try:
        lengths, words = meta["lengths"], normalise_transcript(meta["transcript"] or "")
        streams = tuple(stream for stream in STREAMS if lengths[stream])
        seconds = max(lengths["audio"] / SAMPLE_RATE, lengths["video"] / VIDEO_RATE) or None
    except (KeyError, TypeError) as error:
        key = examples.key(index)
        raise CorruptError(f"{key}: not a record of prepared features ({error})") from None
    return ProbeResult(streams, seconds, words or None if "text" in streams else None)


def _from_row(row: ManifestRow, manifest: Path, make: MakeSource) -> Source:
    if not isinstance(row, DataError):
        return make(row, manifest.parent, name=row.key)

    def refuse() -> NoReturn:
        raise row

    return ReadySource(portable_key(row.item), row.item, refuse, refuse, row.message)


def _foreign(tars: Path, make: MakeSource) -> list[Source]:
    """Samples in tars that others wrote in the format of WebDataset."""
    if tars.is_dir() and not any(tars.glob(f"*{wds.SUFFIX}")):
        return []
    return [make(row, Path(), name=str(row.media)) for row in wds.read(tars)]


def _suffix(url: str) -> str:
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def _from_file(path: Path, make: MakeSource) -> Source:
    row = Utterance(portable_key(str(path)), str(path))
    return make(row, Path(), name=str(path))
