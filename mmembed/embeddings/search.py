"""The nearest embeddings to one by cosine: exact, or approximate where there are millions.

Cosines of all vectors are computed in float32; every vector whose cosine could, within the rounding
of a float32 sum of W products, still belong to the k nearest is then compared in float64. So the
answer is that of a float64 search over all pairs, ties included: of equal cosines the earlier clip
comes first. Approximate search compares the vectors of a few parts of a `Partition` alone, in the
same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import ArrayLike, NDArray

from mmembed.data.example import Example
from mmembed.data.shards.layout import ShardSet
from mmembed.data.shards.records import CROPS, PACKED_CROPS, crops_of
from mmembed.embeddings.ivf import Partition, open_partition
from mmembed.embeddings.read import Embeddings, Vectors, map_embeddings
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.io.remote import as_url
from mmembed.streams import subset_name

_BLOCK = 65_536  # rows compared in float64 at a time

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Hit:
    """One of the nearest.

    Attributes:
        row: of the embeddings.
        cosine: in [-1, 1].
    """

    row: int
    cosine: float


class VectorIndex:
    """Vectors that are searched one by one.

    Args:
        vectors: (N, W).
        partition: of the vectors; the nearest are looked for in some of its parts. None = in all.

    Raises:
        CorruptError: a vector holds what is not finite.
    """

    def __init__(self, vectors: Vectors, partition: Partition | None = None) -> None:
        self._vectors, self._partition = vectors, partition
        if partition is not None:  # made of finite vectors alone
            return
        self._inverse = _inverse_norms(vectors)
        if not np.isfinite(self._inverse).all():
            row = int(np.flatnonzero(~np.isfinite(self._inverse))[0])
            raise CorruptError(f"vector {row} of {len(vectors)} is not finite; mmembed verify")

    def nearest(
        self, query: ArrayLike, k: int = 10, among: Mask | None = None, itself: int | None = None
    ) -> list[Hit]:
        """The k nearest, nearest first, or all where there are fewer.

        Args:
            query: (W,). A vector of zeros has the cosine 0 with everything.
            k: at least 1.
            among: (N,) True for the vectors that may be found; None = all.
            itself: the row that the query is, which comes before all others as near.

        Raises:
            ValueError: the query is not (W,) finite values, or k is less than 1.
        """
        vector = np.asarray(query, np.float64)
        width = self._vectors.shape[1]
        if vector.shape != (width,) or not np.isfinite(vector).all():
            raise ValueError(f"a query is ({width},) finite values, found {vector.shape}")
        if k < 1:
            raise ValueError(f"k {k}: at least 1")
        norm = np.sqrt(vector @ vector)
        vector = vector / norm if norm > 0 else vector
        if self._partition is None:
            scores = _dot(self._vectors, vector) * self._inverse
            if among is not None:
                scores[~among] = -np.inf
            k = min(k, len(scores) if among is None else int(among.sum()))
            close = _closest(scores, k, width)
        else:
            rows = self._partition.near(vector, k, among)
            if itself is not None and (among is None or among[itself]):
                rows = np.append(rows, itself)
            rows = np.unique(rows)
            vectors = self._vectors[rows]
            close = rows[_closest(_dot(vectors, vector) * _inverse_norms(vectors), k, width)]
        cosines = np.minimum(self._exact(close, vector), 1.0)
        if itself is not None:
            cosines[close == itself] = 1.0 if norm > 0 else 0.0
        order = np.lexsort((close, close != itself, -cosines))[:k]
        return [Hit(int(close[place]), float(cosines[place])) for place in order]

    def _exact(self, rows: NDArray[np.int64], query: NDArray[np.float64]) -> NDArray[np.float64]:
        """(N',) cosines in float64; equal rows give equal cosines, as einsum sums each alike."""
        cosines = np.zeros(len(rows))
        for first in range(0, len(rows), _BLOCK):
            part = self._vectors[rows[first : first + _BLOCK]].astype(np.float64)
            norms = np.sqrt(np.einsum("nw,nw->n", part, part))
            products = np.einsum("nw,w->n", part, query)
            here = cosines[first : first + _BLOCK]
            np.divide(products, norms, out=here, where=norms > 0)
        return cosines


def _dot(vectors: Vectors, query: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N,) products with a query (W,), in float32."""
    # On one thread einsum is nearly twice as fast here as a BLAS matrix-vector product.
    products: NDArray[np.float32] = np.einsum("nw,w->n", vectors, query.astype(np.float32))
    return products


def _inverse_norms(vectors: Vectors) -> NDArray[np.float32]:
    """(N,), 0 for a vector of zeros, NaN for one that is not finite."""
    norms = np.sqrt(np.einsum("nw,nw->n", vectors, vectors))
    norms[np.isinf(norms)] = np.nan
    inverse: NDArray[np.float32] = np.zeros_like(norms)
    np.divide(1, norms, out=inverse, where=norms != 0)
    return inverse


def _closest(scores: NDArray[np.float32], k: int, width: int) -> NDArray[np.int64]:
    """Positions that hold the k highest for certain, in spite of rounding, and few others."""
    k = min(k, len(scores))
    if k == 0:
        return np.zeros(0, np.int64)
    # |fl(x.y) - x.y| <= W eps / 2 |x| |y|, on both sides of the border; and the roundings of
    # the query, the norm and the product.
    margin = (width + 8) * float(np.finfo(np.float32).eps)
    border = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= border - margin)


class EmbeddingSearch(VectorIndex):
    """A folder of embeddings to search in.

    Attributes:
        embeddings: pooled vectors and what is known of each.
        name: what errors call it.
    """

    def __init__(
        self,
        embeddings: Embeddings,
        name: str = "the embeddings",
        partition: Partition | None = None,
    ) -> None:
        self.embeddings = embeddings
        self.name = name
        super().__init__(embeddings.vectors, partition)

    @classmethod
    def open(cls, folder: Path | str, *, approximate: bool = False) -> EmbeddingSearch:
        """Map the vectors of a folder; the first time a copy of them is made beside its shards.

        Args:
            folder: of embeddings.
            approximate: search in the parts of a `Partition`, which is made the first time.

        Raises:
            DataError, UsageError, CorruptError: see `map_embeddings`; CorruptError also for a
                vector that is not finite.
        """
        try:
            embeddings = map_embeddings(folder)
            partition = open_partition(folder, embeddings.vectors) if approximate else None
            return cls(embeddings, str(folder), partition)
        except CorruptError as error:
            prefix = "" if str(folder) in str(error) else f"{folder}: "
            raise CorruptError(f"{prefix}{error}") from None

    def check_encoder(self, sha256: str, name: str) -> None:
        """Refuse, with a UsageError, an encoder that did not make the vectors, or may not have."""
        metadata = self.embeddings.metadata
        if "encoder_sha256" not in metadata or "streams" not in metadata:
            raise UsageError(f"{self.name}: its manifest.json does not name the encoder")
        if sha256 != (own := str(metadata["encoder_sha256"])):
            raise UsageError(
                f"{name}: another encoder (SHA-256 {sha256[:12]}...) than that of the "
                f"embeddings ({own[:12]}...); vectors of two encoders cannot be compared"
            )

    def comparable(self, example: Example) -> tuple[Example, str | None]:
        """What of a clip can be compared with the vectors, and a note where that is not all.

        Raises:
            UsageError: the clip has none of the streams that were embedded.
        """
        streams = tuple(self.embeddings.metadata["streams"])
        there, query = subset_name(streams), example.only(streams)
        if not query.streams:
            raise UsageError(
                f"the query has {subset_name(example.streams)}, {self.name} holds vectors of "
                f"{there}: nothing in common"
            )
        if query.streams == streams:
            return query, None
        return query, (
            f"the query has only {subset_name(query.streams)} of {there}; cosines are lower and "
            "tell what both have in common"
        )

    def row_of(self, key: str) -> int | None:
        """The row of a key, None where it is not there."""
        row: int = pc.index(self.embeddings.table["key"], key).as_py()
        return None if row < 0 else row

    def select(
        self, label: str | None = None, speaker: str | None = None, split: str | None = None
    ) -> Mask | None:
        """(N,) the clips with this category, or with this emotion present; of this speaker; of this
        split. None = all clips.

        Raises:
            UsageError: there is none.
        """
        wanted = {"label": label, "speaker": speaker, "split": split}
        conditions = {name: value for name, value in wanted.items() if value is not None}
        if not conditions:
            return None
        chosen: Mask = np.all([self._holding(*each) for each in conditions.items()], axis=0)
        if not chosen.any():
            described = ", ".join(f"{name} {value!r}" for name, value in conditions.items())
            raise UsageError(f"no clip has {described}")
        return chosen

    def nearest_to(self, row: int, k: int = 10, among: Mask | None = None) -> list[Hit]:
        """The k clips nearest to one of them, itself first where it is among those allowed."""
        return self.nearest(self.embeddings.vectors[row], k, among, itself=row)

    def _holding(self, name: str, value: str) -> Mask:
        table = self.embeddings.table
        if name != "label":
            return _mask(pc.equal(table[name], value))
        held = _mask(pc.equal(table["category"], value))
        rows = pc.list_parent_indices(table["present"])
        present = _mask(pc.equal(pc.list_flatten(table["present"]), value))
        held[rows.to_numpy()[present]] = True
        return held


@dataclass(frozen=True)
class SearchResult:
    """What is known of one of the nearest.

    Attributes:
        rank: from 1.
        cosine: of its vector with the query.
        key, speaker, split, streams: as in the table of `Embeddings`.
        labels: see `describe_labels`.
        text: what is said, None where it is not known.
    """

    rank: int
    cosine: float
    key: str
    speaker: str | None
    split: str | None
    streams: str
    labels: str
    text: str | None


class Sources:
    """The prepared shards that embeddings were made of, where they are still on this machine.

    Args:
        metadata: `Embeddings.metadata`; its "inputs" are looked for from the working folder. What
            is behind a URL is left alone.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._sets = []
        for name in metadata.get("inputs", ()):
            try:
                if as_url(str(name)) is None and Path(name).is_dir():
                    self._sets.append(ShardSet(Path(name)))
            except (DataError, CorruptError, UsageError):  # of media, no longer whole, of no kind
                continue

    def describe(
        self, embeddings: Embeddings, hits: Sequence[Hit], *, faces: bool = False
    ) -> tuple[list[SearchResult], list[NDArray[np.uint8] | None]]:
        """What is known of the nearest, and a face crop of each where there is one."""
        table = embeddings.table.take([hit.row for hit in hits])
        results, crops = [], []
        for rank, (hit, held) in enumerate(zip(hits, table.to_pylist(), strict=True), start=1):
            words, crop = self.look_up(held["key"], face=faces)
            known = {name: held[name] for name in ("key", "speaker", "split", "streams")}
            labels = describe_labels(held)
            results.append(SearchResult(rank, hit.cosine, **known, labels=labels, text=words))
            crops.append(crop)
        return results, crops

    def look_up(
        self, key: str, *, face: bool = False
    ) -> tuple[str | None, NDArray[np.uint8] | None]:
        """(what is said, the middle face crop), each None where it is not known."""
        members = ("json", CROPS, PACKED_CROPS) if face else ("json",)
        for shards in self._sets:
            place = pc.index(shards.texts("key"), key).as_py()
            if place < 0:
                continue
            try:
                held = shards.read(place, members).members
                words = held["json"]["utterance"].get("transcript") or held["json"]["text"]
                crops = crops_of(held)
                return words, None if crops is None else crops[len(crops) // 2]
            except (CorruptError, KeyError, TypeError, AttributeError):
                return None, None
        return None, None


def describe_labels(row: dict[str, Any]) -> str:
    """The labels of a row of the table in a few words: "sad", "joy, hope", "sentiment +1.5"."""
    names: Sequence[str] = [row["category"]] if row["category"] else row["present"] or []
    sentiment = row["sentiment"]
    return ", ".join([*names, *([] if sentiment is None else [f"sentiment {sentiment:+.1f}"])])


def _mask(values: pa.ChunkedArray) -> Mask:
    mask: Mask = np.array(pc.fill_null(values, False).to_numpy(), bool)
    return mask
