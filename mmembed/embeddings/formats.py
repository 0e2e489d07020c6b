"""Embedding shards in other forms: one file for a whole folder, or one for each array of it.

    embeddings.parquet          a row for each clip
    embeddings.safetensors      pooled (N, 2 D), layers (N, L, 2 D), frames and words (all of them,
                                one after another), frames.offsets and words.offsets (N + 1,)
    embeddings.pooled.npy, ...  the same arrays, one a file
    embeddings.jsonl            the N clips in the order of the arrays; with safetensors and npy
    embeddings.json             SHA-256 of each of these files, and of the shards they were made of

Clip n has the rows offsets[n] to offsets[n + 1] of frames and words. The shards are passed over
once, a few clips in memory at a time; each file appears whole, `embeddings.json` last.

The header of the safetensors file is written here: that library writes tensors that are all in
memory, these are written as the shards are read. Headers of npy files are those of numpy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy
from numpy.typing import NDArray

from mmembed.data.shards.layout import Record, ShardSet
from mmembed.data.verify.embeddings import COPIES, read_copies
from mmembed.embeddings.read import COLUMNS, columns_of
from mmembed.errors import CorruptError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.settings.extract import Format

CLIPS: Final = "embeddings.jsonl"
TABLE: Final = "embeddings.parquet"
TENSORS: Final = "embeddings.safetensors"
ARRAY: Final = "embeddings.{}.npy"

_STEPWISE: Final = ("frames", "words")
_ROWS: Final = 128  # clips in memory at a time, and in a row group of the table
_CODES: Final = {"float32": "F32", "float16": "F16", "int64": "I64"}  # of safetensors


@dataclass(frozen=True)
class Layout:
    """Name, shape and type of an array of the whole folder."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def write_formats(folder: Path, formats: Sequence[Format]) -> None:
    """Write the forms that are asked for and not there yet; "webdataset" is the shards themselves.

    Args:
        folder: of complete shards.
        formats: of `Format`.
    """
    wanted = set(formats) - {"webdataset"}
    shards = ShardSet(folder)
    about = _read_about(folder, shards.digest)
    if not wanted or not len(shards) or wanted <= set(about.get("formats", ())):
        return
    names: list[str] = []
    with ExitStack() as stack:

        def open_file(name: str) -> BinaryIO:
            names.append(name)
            return stack.enter_context(atomic_file(folder / name))

        layouts = _layouts(shards)
        writers: list[_Table | _Arrays] = []
        if "parquet" in wanted:
            table = _Table(open_file(TABLE), shards)
            stack.callback(table.writer.close)
            writers.append(table)
        files: dict[str, list[tuple[BinaryIO, int]]] = {layout.name: [] for layout in layouts}
        if "npy" in wanted:
            for layout in layouts:
                file = open_file(ARRAY.format(layout.name))
                kind = {"descr": npy.dtype_to_descr(layout.dtype), "fortran_order": False}
                npy.write_array_header_1_0(file, {**kind, "shape": layout.shape})
                files[layout.name].append((file, file.tell()))
        if "safetensors" in wanted:
            file = open_file(TENSORS)
            for name, start in _tensors_header(file, layouts, shards.manifest).items():
                files[name].append((file, start))
        if wanted & {"npy", "safetensors"}:
            writers.append(_Arrays(files, open_file(CLIPS)))
        for first in range(0, len(shards), _ROWS):
            rows = range(first, min(first + _ROWS, len(shards)))
            records = [shards.read(row) for row in rows]
            for writer in writers:
                writer.write(records)
    held = {**about.get("files", {}), **{name: _checked(folder / name) for name in names}}
    done = sorted(wanted | set(about.get("formats", ())))
    with atomic_file(folder / COPIES) as file:
        written = {"shards": shards.digest, "formats": done, "files": held}
        file.write(dumps(written, sort_keys=True).encode() + b"\n")


def _read_about(folder: Path, digest: str) -> Mapping[str, Any]:
    """What `embeddings.json` says, {} where it is of others or a file has another size."""
    try:
        about = read_copies(folder) or {"files": {}}
        whole = all((folder / n).stat().st_size == x["bytes"] for n, x in about["files"].items())
        return about if whole and about.get("shards") == digest else {}
    except (OSError, CorruptError):
        return {}


def _checked(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _layouts(shards: ShardSet) -> list[Layout]:
    """The arrays of a folder, by its first record; numbers of steps stand in all records' meta."""
    first = shards.read(0).members
    layouts = []
    for name in ("pooled", "layers", *_STEPWISE):
        if (array := first.get(f"{name}.npy")) is None:
            continue
        if name in _STEPWISE:
            total = sum(int(shards.meta(row)[name]) for row in range(len(shards)))
            layouts.append(Layout(name, (total, *array.shape[1:]), array.dtype))
            ends = (len(shards) + 1,)
            layouts.append(Layout(f"{name}.offsets", ends, np.dtype(np.int64)))
        else:
            layouts.append(Layout(name, (len(shards), *array.shape), array.dtype))
    return layouts


def _tensors_header(
    file: BinaryIO, layouts: Sequence[Layout], manifest: Mapping[str, Any]
) -> dict[str, int]:
    """Write it; name -> where its values begin. The format: 8 bytes of length, JSON, values."""
    at, starts = 0, {}
    header: dict[str, Any] = {"__metadata__": {"mmembed": dumps(manifest, sort_keys=True)}}
    for layout in sorted(layouts, key=lambda x: -x.dtype.itemsize):  # so that each is aligned
        ends = [at, at + math.prod(layout.shape) * layout.dtype.itemsize]
        kind = _CODES[layout.dtype.name]
        header[layout.name] = {"dtype": kind, "shape": list(layout.shape), "data_offsets": ends}
        starts[layout.name], at = ends
    data = dumps(header).encode()
    data += b" " * (-len(data) % 8)
    file.write(len(data).to_bytes(8, "little") + data)
    return {name: 8 + len(data) + start for name, start in starts.items()}


class _Arrays:
    """Arrays that grow in several files at once, and the list of clips."""

    def __init__(self, files: Mapping[str, list[tuple[BinaryIO, int]]], clips: BinaryIO) -> None:
        self._files, self._clips = files, clips
        self._ends = {name: 0 for name in _STEPWISE if name in files}
        for name in self._ends:
            self._append(f"{name}.offsets", np.zeros(1, np.int64))

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            line = {"key": record.key, "frames": record.meta["frames"], **record.members["json"]}
            self._clips.write(dumps(line, sort_keys=True).encode() + b"\n")
            for name in self._files:
                if f"{name}.npy" in record.members:
                    self._append(name, record.members[f"{name}.npy"])
            for name in self._ends:
                self._ends[name] += len(record.members[f"{name}.npy"])
                self._append(f"{name}.offsets", np.array([self._ends[name]], np.int64))

    def _append(self, name: str, values: NDArray[Any]) -> None:
        data = values.tobytes()
        for number, (file, start) in enumerate(self._files[name]):
            file.seek(start)
            file.write(data)
            self._files[name][number] = (file, start + len(data))


class _Table:
    """A Parquet file with a row group for every few clips."""

    def __init__(self, file: BinaryIO, shards: ShardSet) -> None:
        self._layers: Sequence[str] = shards.manifest["layers"]
        self._scores = _scores(shards)
        scores = ((f"scores.{name}", pa.float64()) for name in self._scores)
        vectors = ((name, column.type) for name, column in self._vectors([shards.read(0)]))
        metadata = {"mmembed": dumps(shards.manifest, sort_keys=True)}
        self._schema = pa.schema([*COLUMNS.items(), *scores, *vectors], metadata)
        self.writer = pq.ParquetWriter(file, self._schema, compression="zstd")

    def write(self, records: Sequence[Record]) -> None:
        rows = [columns_of(record.key, record.members["json"], record.meta) for record in records]
        scores = [row.pop("scores") for row in rows]
        columns = [pa.array([row[name] for row in rows], kind) for name, kind in COLUMNS.items()]
        columns += [pa.array([x.get(name) for x in scores], pa.float64()) for name in self._scores]
        columns += [column for _, column in self._vectors(records)]
        self.writer.write_table(pa.table(columns, self._schema))

    def _vectors(self, records: Sequence[Record]) -> Iterator[tuple[str, pa.Array]]:
        """The columns of vectors: a layer is a column of its own, a word a structure."""
        held = records[0].members
        if "pooled.npy" in held:
            yield "pooled", _fixed([record.members["pooled.npy"][None] for record in records])
            for place, name in enumerate(self._layers):
                layer = [record.members["layers.npy"][place, None] for record in records]
                yield f"layers.{name}", _fixed(layer)
        if "frames.npy" in held:
            frames = [record.members["frames.npy"] for record in records]
            yield "frame_vectors", pa.ListArray.from_arrays(_ends(frames), _fixed(frames))
        if "words.npy" in held:
            vectors = [record.members["words.npy"] for record in records]
            words = [word for record in records for word in record.members["json"]["words"]]
            columns = [
                pa.array([word["text"] for word in words], pa.string()),
                *(pa.array([w[name] for w in words], pa.float64()) for name in ("start", "end")),
                _fixed(vectors),
            ]
            each = pa.StructArray.from_arrays(columns, ["text", "start", "end", "vector"])
            yield "words", pa.ListArray.from_arrays(_ends(vectors), each)


def _fixed(parts: Sequence[NDArray[Any]]) -> pa.Array:
    """Rows of all (n, W) arrays as one column of vectors."""
    values = np.concatenate(parts)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _ends(parts: Sequence[NDArray[Any]]) -> pa.Array:
    return pa.array(np.cumsum([0, *map(len, parts)]), pa.int32())


def _scores(shards: ShardSet) -> list[str]:
    """Names of all scores that any clip has."""
    names: set[str] = set()
    for row in range(len(shards)):
        labels = shards.read(row, ["json"]).members["json"]["labels"] or {}
        names |= set(labels.get("scores") or ())
    return sorted(names)
