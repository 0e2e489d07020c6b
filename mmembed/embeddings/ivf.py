"""Vectors in parts around centres, so that a search need not look at all of them (extra `faiss`).

Spherical k-means of faiss makes about as many parts as each has vectors. A search looks into those
whose centres are nearest to the query (inverted lists; Jegou, Douze and Schmid 2011, section 4).
`vectors.parts.safetensors` beside the shards keeps centres and lists of rows.

faiss has such an index of its own, `IndexIVFFlat`, which is 4 times as fast on one thread (2.3
against 9.9 ms a query among 100,000 vectors of 256 numbers) and finds the same. It is not used: its
file is read by code that trusts it (it may name another file to be opened in its place), and it
repeats all vectors (103 MB; here 1 MB), which are memory-mapped from `vectors.arrow` already.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmembed.data.shards.layout import ShardSet
from mmembed.embeddings.read import Vectors
from mmembed.errors import CorruptError, UsageError
from mmembed.io.atomic import atomic_file
from mmembed.io.checksum import crc32
from mmembed.io.json import dumps
from mmembed.io.remote import as_url

KEPT: Final = "vectors.parts.safetensors"
NPROBE: Final = 16  # parts of usual size, more where too few of their vectors may be found
ROUNDS: Final = 10  # of k-means
SAMPLE: Final = 256  # vectors for each centre that k-means learns from
_BLOCK: Final = 65_536  # vectors assigned at a time
_FORMAT: Final = "parts 1"

Mask = NDArray[np.bool_]
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Partition:
    """Every vector in one of C parts.

    Attributes:
        centres: (C, W) float32 of length 1.
        order: (N,) int64, all rows, part by part.
        bounds: (C + 1,) int64: part c is `order[bounds[c] : bounds[c + 1]]`.
    """

    centres: Vectors
    order: NDArray[np.int64]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, vectors: Vectors) -> Partition:
        """Part vectors (N, W), N at least 1; takes a minute a million on two cores.

        Raises:
            CorruptError: a vector holds what is not finite.
            UsageError: faiss is not installed.
        """
        try:
            import faiss
        except ImportError as error:
            raise UsageError(
                f"approximate search: needs pip install 'mmembed[faiss]' ({error})"
            ) from None
        count, width = vectors.shape
        parts = max(1, round(math.sqrt(count)))
        drawn = np.random.default_rng(0).permutation(count)[: SAMPLE * parts]
        kmeans = faiss.Kmeans(
            width, parts, niter=ROUNDS, seed=0, spherical=True, min_points_per_centroid=1
        )
        kmeans.train(_directions(vectors, np.sort(drawn)))
        part_of = np.empty(count, np.int64)
        for first in range(0, count, _BLOCK):
            rows = np.arange(first, min(first + _BLOCK, count))
            part_of[rows] = kmeans.index.search(_directions(vectors, rows), 1)[1][:, 0]
        bounds = np.concatenate(([0], np.bincount(part_of, minlength=parts).cumsum()))
        return cls(
            np.asarray(kmeans.centroids, np.float32), np.argsort(part_of, kind="stable"), bounds
        )

    @classmethod
    def read(cls, folder: Path, digest: str, vectors: Vectors) -> Partition | None:
        """What `write` left, where it is whole and of these vectors in shards with this digest."""
        try:
            with safe_open(folder / KEPT, "numpy") as file:
                held = {name: file.get_tensor(name) for name in ("centres", "order", "bounds")}
                about = file.metadata()
            whole = about == _about(held, digest) and _is_partition(**held, vectors=vectors)
        except (OSError, SafetensorError, TypeError, ValueError):
            return None
        return cls(**held) if whole else None

    def write(self, folder: Path, digest: str) -> None:
        """Keep it beside shards with this digest."""
        held: Arrays = {"centres": self.centres, "order": self.order, "bounds": self.bounds}
        with atomic_file(folder / KEPT) as file:
            file.write(save(held, _about(held, digest)))

    def near(self, query: NDArray[np.float64], k: int, among: Mask | None) -> NDArray[np.int64]:
        """Rows of the parts nearest to a query (W,): at least k, or all that may be found."""
        chosen, seen, count = [], 0, 0
        enough = NPROBE * len(self.order) / len(self.centres)
        for part in np.argsort(-np.einsum("cw,w->c", self.centres, query.astype(np.float32))):
            rows = self.order[self.bounds[part] : self.bounds[part + 1]]
            chosen.append(rows if among is None else rows[among[rows]])
            seen, count = seen + len(rows), count + len(chosen[-1])
            if seen >= enough and count >= k:
                break
        return np.concatenate(chosen)


def open_partition(folder: Path | str, vectors: Vectors) -> Partition:
    """That of a folder's pooled vectors: the kept one, or one made now and kept where that is
    possible.

    Raises:
        as `Partition.of`.
    """
    if as_url(folder) is not None:
        return Partition.of(vectors)
    here, digest = Path(folder), ShardSet(folder).digest
    if (found := Partition.read(here, digest, vectors)) is not None:
        return found
    made = Partition.of(vectors)
    with suppress(OSError):  # read-only, or full
        made.write(here, digest)
    return made


def _is_partition(
    centres: NDArray[Any], order: NDArray[Any], bounds: NDArray[Any], vectors: Vectors
) -> bool:
    """Whether each row of the vectors (N, W) stands in one part; the file may be forged."""
    count, width = vectors.shape
    kinds = [(array.dtype.name, array.ndim) for array in (centres, order, bounds)]
    return (
        kinds == [("float32", 2), ("int64", 1), ("int64", 1)]
        and centres.shape == (len(bounds) - 1, width)
        and len(centres) > 0
        and bool(np.isfinite(centres).all())
        and (bounds[0], bounds[-1]) == (0, count)
        and bool((np.diff(bounds) >= 0).all())
        and np.array_equal(np.sort(order), np.arange(count))
    )


def _directions(vectors: Vectors, rows: NDArray[np.int64]) -> Vectors:
    """Some of the vectors, of length 1."""
    some = vectors[rows]
    norms = np.sqrt(np.einsum("nw,nw->n", some, some))
    if not np.isfinite(norms).all():
        row = int(rows[~np.isfinite(norms)][0])
        raise CorruptError(f"vector {row} of {len(vectors)} is not finite; mmembed verify")
    norms[norms == 0] = 1
    directions: Vectors = some / norms[:, None]
    return directions


def _about(held: Arrays, digest: str) -> dict[str, str]:
    """In one entry: safetensors writes several in any order."""
    checksums = {name: crc32(np.ascontiguousarray(array).data) for name, array in held.items()}
    return {"about": dumps({"format": _FORMAT, "shards": digest, "crc32": checksums})}
