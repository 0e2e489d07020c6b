"""Written embeddings as arrays and a table: what `mmembed extract` leaves, for numpy and Arrow.

`load_embeddings` reads the shards. `map_embeddings` maps a copy of the pooled vectors and the
table, made at the first call, so that a million of them open in a second: `vectors.arrow`, an Arrow
IPC file that any Arrow reader opens, and `vectors.json`, which names the content of the shards it
was made of and its own checksum. Where one of them does not fit, the copy is made anew.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmembed.data.manifest.utterance import ROW
from mmembed.data.shards.layout import Record, ShardSet
from mmembed.errors import CorruptError, UsageError
from mmembed.io.arrow import ArrowFile
from mmembed.io.atomic import atomic_file
from mmembed.io.checksum import crc32
from mmembed.io.json import dumps
from mmembed.io.locks import file_lock
from mmembed.io.remote import as_url
from mmembed.streams import subset_name

PARTS: Final = ("pooled", "layers")
GRANULARITY: Final = {"pooled": "utterance", "layers": "utterance", "frames": "frame"}
"""Part of a record -> what `mmembed extract --granularity` calls it."""
COPY, ABOUT, LOCK = "vectors.arrow", "vectors.json", ".vectors.lock"

LABELS: Final = ("category", "sentiment", "sentiment_limit", "emotions", "present")
_FORMAT: Final = "vectors 2"
_VECTOR: Final = "pooled"  # its column in the copy
COLUMNS: Final[Mapping[str, pa.DataType]] = {
    "key": pa.string(),
    "speaker": pa.string(),
    "dialogue": pa.string(),
    "turn": pa.int64(),
    "split": pa.string(),
    "language": pa.string(),
    "media": pa.string(),
    "start": pa.float64(),
    "end": pa.float64(),
    "transcript": pa.string(),
    "licence": pa.string(),
    "streams": pa.string(),
    "seconds": pa.float64(),
    "frames": pa.int64(),
    "category": pa.string(),
    "sentiment": pa.float64(),
    "sentiment_limit": pa.float64(),
    "emotions": pa.list_(pa.float64()),
    "present": pa.list_(pa.string()),
}

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Embeddings:
    """Vectors of clips, and what is known of each clip.

    Attributes:
        vectors: (N, W) pooled, or (N, L, W) layers. W is 2 D: mean, then standard deviation.
        table: N rows; null where a clip has no such thing, or its record is of an older version
            that did not keep it. key, speaker, dialogue, turn, split, language, media, start, end,
            transcript and licence as in `mmembed.data.manifest.utterance.Utterance`; streams (those
            embedded, "audio+video"), seconds (of the media), frames (T, at 25 Hz); labels as in
            `mmembed.data.manifest.utterance.Labels`: category, sentiment, sentiment_limit, emotions
            (in the order of `EMOTIONS`), present, and "scores.NAME" for each score of a clip.
        metadata: of all: encoder_sha256, streams, layers (L names), frame_rate, ...
    """

    vectors: Vectors
    table: pa.Table
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({len(self)} clips, vectors {self.vectors.shape}, "
            f"{'+'.join(self.metadata.get('streams', ()))}, encoder "
            f"{str(self.metadata.get('encoder_sha256', 'unknown'))[:12]}, table of "
            f"{', '.join(self.table.column_names)})"
        )

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys of the clips, in order."""
        return tuple(self.table["key"].to_pylist())


def load_embeddings(
    folder: Path | str, part: str = "pooled", split: str | None = None
) -> Embeddings:
    """Read a folder of embedding shards in one pass, into one array made beforehand.

    Args:
        folder: of shards, here or behind a URL; with several stream subsets, that of one of them.
        part: "pooled" or "layers".
        split: only the clips of this split.

    Raises:
        DataError: the folder holds no shard.
        UsageError: it holds no embeddings, none of the split, or there is no such part.
        CorruptError: a shard is damaged.
    """
    if part not in PARTS:
        raise UsageError(f"part {part!r}: one of {', '.join(PARTS)}")
    shards = ShardSet(folder)
    places = _places(shards, split)
    vectors: Vectors | None = None
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    scores: list[Mapping[str, float]] = []
    for row, (record, vector) in enumerate(read_arrays(shards, places, part)):
        if vectors is None:
            vectors = np.empty((len(places), *vector.shape), np.float32)
        vectors[row] = vector
        try:
            values = columns_of(record.key, record.members["json"], record.meta)
            scores.append(values.pop("scores"))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CorruptError(f"{folder}: {record.key} is no embedding: {error!r}") from None
        for name, value in values.items():
            columns[name].append(value)
    assert vectors is not None  # a set of shards may be empty, a split of it is not
    try:
        table = pa.table({n: pa.array(columns[n], kind) for n, kind in COLUMNS.items()})
        for name in sorted({name for held in scores for name in held}):
            column = pa.array([held.get(name) for held in scores], pa.float64())
            table = table.append_column(f"scores.{name}", column)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise CorruptError(f"{folder}: a record describes itself wrongly: {error}") from None
    return Embeddings(vectors, table, shards.manifest)


def read_arrays(
    shards: ShardSet, places: Iterable[int], part: str
) -> Iterator[tuple[Record, NDArray[Any]]]:
    """The records at these places with their JSON, and the array of a part of each.

    All arrays have one shape; "frames" (T, D) may be of any number.

    Raises:
        UsageError: a record lacks the part.
        CorruptError: an array has another shape than the first, or a shard is damaged.
    """
    member = f"{part}.npy"
    shape: tuple[int, ...] | None = None
    for place in places:
        record = shards.read(place, [member, "json"])
        array = record.members.get(member)
        if not isinstance(array, np.ndarray):
            described = record.members.get("json")
            fix = f"extract it with --granularity {GRANULARITY[part]}"
            if isinstance(described, dict) and "utterance" in described:  # prepared, not extracted
                fix = "these are no embeddings: mmembed extract makes some"
            raise UsageError(f"{shards.folder}: {record.key} holds no {part}; {fix}")
        own = array.shape[1:] if part == "frames" else array.shape
        if shape is not None and own != shape:
            raise CorruptError(
                f"{shards.folder}: {part} of {record.key} is {array.shape}, of others {shape}; "
                "mmembed verify tells more"
            )
        shape = own
        yield record, array


def map_embeddings(folder: Path | str) -> Embeddings:
    """The pooled vectors of a whole folder, mapped and shared by all processes; read-only.

    Where nothing can be written beside the shards, and behind a URL, they are held in memory.

    Raises:
        as `load_embeddings`.
    """
    if as_url(folder) is not None:
        return load_embeddings(folder)
    here, shards = Path(folder), ShardSet(folder)
    if (found := _mapped(here, shards)) is not None:
        return found
    try:
        with file_lock(here / LOCK):
            if (found := _mapped(here, shards)) is None:  # nobody made it meanwhile
                found = load_embeddings(folder)
                write_copy(here, found, shards.digest)
        return _mapped(here, shards) or found
    except OSError:  # read-only, or full
        return load_embeddings(folder)


def write_copy(folder: Path, embeddings: Embeddings, digest: str) -> None:
    """Write the copy of pooled vectors; `vectors.json` is the commit.

    Args:
        folder: of the shards.
        embeddings: all of them.
        digest: `ShardSet.digest`.
    """
    (folder / ABOUT).unlink(missing_ok=True)
    width = embeddings.vectors.shape[1]
    column = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.vectors.reshape(-1)), width)
    table = embeddings.table.combine_chunks().append_column(_VECTOR, column)
    with atomic_file(folder / COPY) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with (folder / COPY).open("rb") as file:
        written = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    about = {"format": _FORMAT, "shards": digest, "bytes": len(written), "crc32": crc32(written)}
    with atomic_file(folder / ABOUT) as file:
        file.write(dumps(about).encode() + b"\n")


def _mapped(folder: Path, shards: ShardSet) -> Embeddings | None:
    """The copy, where there is one that is whole and of these shards."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        with (folder / COPY).open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        found = {"format": _FORMAT, "shards": shards.digest, "bytes": len(mapped)}
        if about != {**found, "crc32": crc32(mapped)}:
            return None
        # A checksum stops accidents alone: an attacker writes a new one.
        ((rows, _),) = ArrowFile(mapped).batches
        rows.validate(full=True)
        table = pa.Table.from_batches([rows])
        column = rows.column(_VECTOR)
        _check_copy(table, column, shards)
        vectors = column.values.to_numpy(zero_copy_only=True).reshape(-1, column.type.list_size)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, pa.ArrowException):
        return None
    return Embeddings(vectors, table.drop_columns([_VECTOR]), shards.manifest)


def _check_copy(table: pa.Table, vectors: pa.Array, shards: ShardSet) -> None:
    """Raises ValueError where a validated table is not one that `write_copy` writes of shards."""
    kinds = {field.name: field.type for field in table.schema}
    scores = [name for name in kinds if name.startswith("scores.")]
    expected = [*COLUMNS.items(), *((name, pa.float64()) for name in scores)]
    if list(kinds.items())[:-1] != expected or table.column_names[-1] != _VECTOR:
        raise ValueError("other columns")
    if not pa.types.is_fixed_size_list(vectors.type) or vectors.type.value_type != pa.float32():
        raise ValueError(f"vectors are {vectors.type}")
    if vectors.type.list_size < 1 or vectors.null_count or vectors.values.null_count:
        raise ValueError("vectors are missing")
    if not table.column("key").equals(shards.texts("key")):
        raise ValueError("other clips")


def _places(shards: ShardSet, split: str | None) -> list[int]:
    if not len(shards):
        raise UsageError(f"{shards.folder}: its shards hold no record")
    if split is None:
        return list(range(len(shards)))
    splits = shards.texts("split")
    chosen = pc.fill_null(pc.equal(splits, split), False).to_numpy()
    if not chosen.any():
        there = ", ".join(sorted(filter(None, splits.unique().to_pylist()))) or "none"
        raise UsageError(f"{shards.folder}: holds no clip of split {split!r}; splits are {there}")
    places: list[int] = np.flatnonzero(chosen).tolist()
    return places


def columns_of(key: str, described: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says in each of `COLUMNS`, and its "scores".

    Args:
        key: of the record.
        described: its JSON.
        meta: its meta.
    """
    labels = described["labels"] or {}
    seconds = described["notes"].get("seconds")
    return {
        "key": key,
        **{name: described.get(name) for name in ROW if name != "labels"},
        "streams": subset_name(described["streams"]),
        "seconds": None if seconds is None else float(seconds),
        "frames": meta.get("frames"),
        **{name: labels.get(name) for name in LABELS},
        "scores": dict(labels.get("scores") or {}),
    }
