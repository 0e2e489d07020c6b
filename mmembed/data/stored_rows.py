"""Manifests, prepared features and embeddings seen alike: one row for each utterance.

Rows come one after another, so that memory does not grow with the number of shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from numpy.typing import NDArray

from mmembed.data.example import ExampleInfo
from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.locations import Json, Location, Progress
from mmembed.data.manifest.jsonl import count_rows, each_row
from mmembed.data.manifest.utterance import Utterance, utterance_of
from mmembed.data.shards.format import Member, members_of, read_member
from mmembed.data.shards.records import (
    FEATURES,
    OLDER,
    SOUND,
    crops_of,
    is_older,
    read_description,
)
from mmembed.data.shards.sidecar import read_local_sidecar
from mmembed.errors import CorruptError, DataError
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.text import normalise_transcript
from mmembed.features.video import VIDEO_RATE
from mmembed.streams import STREAMS

POOLED: Final = "pooled.npy"


@dataclass(frozen=True)
class StoredMember:
    """A member of a shard, read only if it is needed."""

    tar: Path
    member: Member

    def read(self) -> NDArray[Any]:
        """The array.

        Raises:
            CorruptError: the bytes there are not those written.
        """
        with self.tar.open("rb") as file:
            return _read(file, self.member)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class StoredRow:
    """What is known of an utterance without decoding its media.

    Attributes:
        utterance: the manifest row, or as much of it as an embedding carries.
        streams: those it has; None = not looked at yet.
        seconds: None = unknown.
        text: its words, normalised, "" without.
        face: how the face was found, None without video.
        vectors: precomputed features by stream (T, D), or "pooled" (D,).
        audio: its sound, None without.
        video: its face crops, None without.
    """

    utterance: Utterance
    streams: tuple[str, ...] | None = None
    seconds: float | None = None
    text: str = ""
    face: str | None = None
    vectors: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    audio: StoredMember | None = None
    video: StoredMember | None = None


def read_rows(
    location: Location, on_progress: Progress = lambda done, of: None
) -> Iterator[StoredRow | DataError]:
    """The rows of a location in order; an error instead of a row whose features cannot be read.

    Raises:
        DataError: the manifest is broken.
        CorruptError: a shard is damaged.
    """
    if location.is_manifest:
        total = count_rows(location.path)
        for done, row in enumerate(each_row(location.path), start=1):
            yield row if isinstance(row, DataError) else _planned(row, location.path.parent)
            on_progress(done, total)
        return
    sidecars = location.sidecars
    for done, sidecar in enumerate(sidecars, start=1):
        index, tar = read_local_sidecar(sidecar), sidecar.with_suffix(".tar")
        with tar.open("rb") as file:
            for record in index["records"]:
                yield _prepared(file, tar, record)
        on_progress(done, len(sidecars))


def _planned(utterance: Utterance, folder: Path) -> StoredRow | DataError:
    """A row of a manifest; no media is opened."""
    media, end = utterance.media, utterance.end
    text = normalise_transcript(utterance.transcript or "")
    streams, vectors = utterance.streams, {}
    if media is None:
        streams = ("text",) if text else ()
    elif SUFFIX + "#" in media:
        file, _, row = media.rpartition("#")
        try:
            vectors = read_features(folder / file, int(row))
        except (DataError, ValueError, OSError) as error:
            reason = error.reason if isinstance(error, DataError) else "media"
            return DataError(utterance.key, reason, str(error))
        except CorruptError as error:
            return DataError(utterance.key, "damaged", str(error))
        streams = _in_order({*vectors, *(["text"] if text else [])})
    seconds = None if media is None or end is None else end - utterance.start
    return StoredRow(utterance, streams, seconds, text, vectors=vectors)


def _prepared(tar: BinaryIO, path: Path, record: Json) -> StoredRow:
    """A record of a shard; of its members only JSON and vectors are read."""
    key, meta = record["key"], record["meta"]
    members = {member.name: member for member in members_of(record)}
    if is_older(members):
        raise CorruptError(f"{path}: {OLDER}")
    described = _read(tar, members["json"]) if "json" in members else None
    if not isinstance(described, Mapping):
        raise CorruptError(f"{path}: {key} is damaged: its JSON is no object")
    vectors = {
        name.removeprefix(FEATURES).removesuffix(".npy"): _read(tar, member)
        for name, member in members.items()
        if name == POOLED or name.startswith(FEATURES)
    }
    stored = {name: StoredMember(path, member) for name, member in members.items()}
    try:
        info = ExampleInfo.from_json(described.get("notes") or {})
        if "utterance" not in described:  # an embedding
            utterance, text = utterance_of(key, described), ""
            streams = _in_order(described.get("streams") or ())
        else:
            utterance, words, info = read_description(described)
            text = words or ""
            lengths = meta.get("lengths") or {}
            present = (s for s in STREAMS if lengths.get(s) or len(vectors.get(s, ())))
            streams = tuple(present)
        return StoredRow(
            utterance,
            streams,
            _seconds(info, meta, utterance),
            text,
            info.face if "video" in streams else None,
            vectors,
            stored.get(SOUND),
            crops_of(stored),
        )
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CorruptError(f"{path}: {key} is no record of this project ({error})") from None


def _seconds(info: ExampleInfo, meta: Json, utterance: Utterance) -> float | None:
    if info.seconds is not None:
        return info.seconds
    lengths = meta.get("lengths") or {}
    seconds = max(lengths.get("audio", 0) / SAMPLE_RATE, lengths.get("video", 0) / VIDEO_RATE)
    if seconds:
        return float(seconds)
    if utterance.media is None or utterance.end is None:
        return None
    return utterance.end - utterance.start


def _in_order(streams: Any) -> tuple[str, ...]:
    return tuple(name for name in STREAMS if name in streams)


def _read(tar: BinaryIO, member: Member) -> Any:
    try:
        return read_member(tar.fileno(), member)
    except ValueError as error:
        damage = f"{tar.name}: {member.name} is damaged: {error}"
        raise CorruptError(f"{damage}; `mmembed verify` lists all that is") from None
