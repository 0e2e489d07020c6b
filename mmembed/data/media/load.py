"""From a manifest row or a file to features, and from features to a shard's record and back."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.example import Example, Utterance
from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.manifest.jsonl import from_row, to_row
from mmembed.data.media.decode import MAX_SECONDS, load_clip, stream_clip
from mmembed.data.media.streaming import Part, features_of, make_notes
from mmembed.data.untrusted import archives
from mmembed.errors import CorruptError, DataError
from mmembed.features.audio import log_mel
from mmembed.features.text import normalise_transcript
from mmembed.features.video import face_crops
from mmembed.io.json_text import shown
from mmembed.io.remote import fetch_file

FEATURES: Final = "features."  # of the name of a member
LARGEST_MEMBER: Final = 1 << 30  # bytes of media in an archive

Members = Mapping[str, "NDArray[Any] | Mapping[str, Any]"]


def load_example(
    utterance: Utterance,
    folder: Path,
    streams: Sequence[str] = STREAMS,
    face_model: Path | None = None,
) -> Example:
    """Decode an utterance and compute its features.

    The transcript, where there is one, is its text stream. An utterance of text without a letter
    or digit has no stream at all and is an example nevertheless.

    Args:
        utterance: a manifest row.
        folder: of the manifest; relative media paths start there.
        streams: those wanted; nothing is decoded for the others.
        face_model: see `face_crops`.

    Raises:
        DataError: the media cannot be used, or the utterance has none of the streams.
    """
    text = normalise_transcript(utterance.transcript or "") or None if "text" in streams else None
    if utterance.media is not None and SUFFIX + "#" in utterance.media:
        file, _, row = utterance.media.rpartition("#")
        features = read_features(folder / file, int(row))
        example = Example(utterance, text=text, features=features).only(tuple(streams))
        if not example.streams:
            raise DataError(utterance.key, "no_streams", f"has no {' or '.join(streams)}")
        return example
    if utterance.media is None or not {"audio", "video"} & set(streams):
        # A turn such as "..." has no words for an encoder and is a turn of its dialogue still.
        if text is None and not ("text" in streams and (utterance.transcript or "").strip()):
            raise DataError(utterance.key, "no_streams", f"has no {' or '.join(streams)}")
        return Example(utterance, text=text)
    with _located(utterance.media, folder) as (path, data):
        clip = load_clip(path, start=utterance.start, end=utterance.end, streams=streams, data=data)
    crops = face = None
    if clip.video is not None:
        crops, face = face_crops(clip.video, face_model)
    audio = log_mel(clip.audio) if clip.audio is not None else None
    notes = make_notes(clip.seconds, clip.notes, face)
    return Example(utterance, audio=audio, video=crops, text=text, notes=notes)


def load_parts(
    utterance: Utterance,
    folder: Path,
    streams: Sequence[str] = STREAMS,
    face_model: Path | None = None,
    *,
    longest: Seconds = MAX_SECONDS,
) -> Generator[Part, None, Example]:
    """The features of media that `load_example` refuses as too long, part by part.

    Args:
        utterance: see `load_example`, as for all arguments.
        folder: likewise.
        streams: likewise.
        face_model: likewise.
        longest: the most that it may last.

    Yields:
        See `mmembed.data.media.streaming.features_of`.

    Returns:
        The example without them.

    Raises:
        DataError: the media cannot be used; part of it may have been yielded.
    """
    assert utterance.media is not None
    with _located(utterance.media, folder) as (path, data):
        blocks = stream_clip(
            path,
            start=utterance.start,
            end=utterance.end,
            streams=streams,
            data=data,
            longest=longest,
        )
        parts = features_of(blocks, face_model)
        size = path.stat().st_size if data is None else len(data)
        while True:
            try:
                part = next(parts)
            except StopIteration as end:
                notes = end.value
                break
            yield part._replace(size=size)
    text = normalise_transcript(utterance.transcript or "") or None if "text" in streams else None
    return Example(utterance, text=text, notes=notes)


@contextmanager
def _located(media: str, folder: Path) -> Iterator[tuple[Path, bytes | None]]:
    """Where a file lies, or the bytes of a member of an archive; what a URL leads to is fetched."""
    archive, _, member = media.rpartition("#")
    if "://" in media:
        file = fetch_file(media)
        path = Path(f"/proc/self/fd/{file.number}")  # stays, whatever becomes of the cache
        try:
            yield path, None
        except DataError as error:
            message = str(error).removeprefix(f"{path}: ")
            raise DataError(media, error.reason, message) from None
    elif archive.endswith(archives.SUFFIXES):
        yield folder / media, archives.read_member(folder / archive, member, LARGEST_MEMBER)
    else:
        yield folder / media, None


def portable_key(name: str) -> str:
    """Any name as a key: ASCII letters, digits, - and _ stay, the rest is percent-encoded.

    Different names give different keys; `urllib.parse.unquote` gives the name back.
    """
    return quote(os.fsencode(name), safe="").replace(".", "%2E").replace("~", "%7E")


def to_record(example: Example) -> tuple[str, Members, Mapping[str, Any]]:
    """(key, members, meta) for a shard; meta is what planning needs without reading members."""
    members: dict[str, NDArray[Any] | Mapping[str, Any]] = {
        "json": {
            "utterance": to_row(example.utterance),
            "text": example.text,
            "notes": dict(example.notes),
        }
    }
    for name, values in (("audio", example.audio), ("video", example.video)):
        if values is not None:
            members[f"{name}.npy"] = values
    members |= {f"{FEATURES}{name}.npy": array for name, array in example.features.items()}
    utterance = example.utterance
    meta = {
        "lengths": {
            "audio": 0 if example.audio is None else len(example.audio),
            "video": 0 if example.video is None else len(example.video),
            "text": len(example.text or ""),
        },
        "features": {name: list(values.shape) for name, values in example.features.items()},
        "transcript": utterance.transcript,
        "speaker": utterance.speaker,
        "split": utterance.split,
    }
    return example.key, members, meta


def read_description(
    described: Mapping[str, Any],
) -> tuple[Utterance, str | None, Mapping[str, Any]]:
    """Utterance, text and notes of a record's JSON, as `to_record` writes it.

    Raises:
        ValueError: one line saying what is not as it writes it.
    """
    text, notes = described.get("text"), described.get("notes")
    if not isinstance(text, str | None):
        raise ValueError(f"text must be a string, found {shown(text)}")
    if not isinstance(notes, Mapping):
        raise ValueError(f"notes must be an object, found {shown(notes)}")
    return from_row(described.get("utterance")), text, notes


def from_record(key: str, members: Members) -> Example:
    """The inverse of `to_record`.

    Raises:
        CorruptError: the record is of another kind.
    """
    described = members.get("json")
    if not isinstance(described, Mapping) or "utterance" not in described:
        raise CorruptError(f"{key}: not a record of prepared features; prepare the corpus again")
    audio, video = (members.get(f"{name}.npy") for name in ("audio", "video"))
    try:
        utterance, text, notes = read_description(described)
    except ValueError as error:
        raise CorruptError(f"{key}: not a record of prepared features ({error})") from None
    return Example(
        utterance,
        audio=audio if isinstance(audio, np.ndarray) else None,
        video=video if isinstance(video, np.ndarray) else None,
        text=text,
        features={
            name.removeprefix(FEATURES).removesuffix(".npy"): values
            for name, values in members.items()
            if name.startswith(FEATURES) and isinstance(values, np.ndarray)
        },
        notes=notes,
    )
