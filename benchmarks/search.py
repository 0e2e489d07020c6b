"""How long exact search takes, and whether it is exact; how much approximate search finds.

    python benchmarks/search.py --vectors 1000000 [--clusters 10000 --approximate]

Writes random vectors around a common mean, as embeddings have one, or in clusters around many, to a
temporary folder as the copy that `mmembed search` maps, and maps it as a search does. Then searches
for vectors of the folder and for noise, and compares some answers with a search over all vectors in
float64. Prints seconds of opening (for approximate search with the making of its parts, and once
more), milliseconds of a search by the clock (median, 95 %) and by the time of the processor, which
other programs disturb less; how many vectors found themselves first, how many answers were those of
float64, and how many of their vectors were found. A search runs on one thread.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import tyro
from numpy.typing import NDArray

from mmembed.data.shards.layout import Record, ShardSet, finish, shard_path, write_shard
from mmembed.embeddings.read import Embeddings, write_copy
from mmembed.embeddings.search import EmbeddingSearch

BLOCK = 50_000


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        vectors: N.
        width: W.
        clusters: whose means are drawn; vectors lie about them with a deviation of .3.
        approximate: look into some parts alone.
        k: of the nearest.
        queries: half of them vectors of the folder, half noise.
        checked: queries that are also answered in float64.
        seed: of everything.
    """

    vectors: int = 1_000_000
    width: int = 480
    clusters: int = 1
    approximate: bool = False
    k: int = 10
    queries: int = 100
    checked: int = 4
    seed: int = 0


def main() -> None:
    """A few lines of figures."""
    settings = tyro.cli(Settings, description=__doc__)
    draw = np.random.default_rng(settings.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, settings, draw)
        opened = []
        for _ in range(1 + settings.approximate):
            begun = time.perf_counter()
            search = EmbeddingSearch.open(folder, approximate=settings.approximate)
            opened.append(f"{time.perf_counter() - begun:.2f} s")
        vectors = search.embeddings.vectors
        rows = draw.integers(0, len(vectors), settings.queries // 2)
        known = [search.embeddings.vectors[row] for row in rows]
        noise = [
            draw.standard_normal(settings.width).astype(np.float32) + 3
            for _ in range(settings.queries - len(known))
        ]
        wall, processor, first, exact, held = [], [], 0, 0, 0
        for number, query in enumerate([*known, *noise]):
            clock, cpu = time.perf_counter(), time.process_time()
            hits = search.nearest(query, settings.k)
            wall.append(1e3 * (time.perf_counter() - clock))
            processor.append(1e3 * (time.process_time() - cpu))
            first += number < len(rows) and hits[0].row == rows[number]
            if number % (settings.queries // settings.checked) == 0:
                true = nearest(vectors, query, settings.k)
                exact += [hit.row for hit in hits] == true
                held += len({hit.row for hit in hits} & set(true))
    print(f"{settings.vectors:,} vectors of width {settings.width}, k {settings.k}")
    print(f"open {', then '.join(opened)}")
    print(f"search: median {np.median(wall):.1f} ms, 95 % {np.quantile(wall, 0.95):.1f} ms")
    print(f"search, processor: median {np.median(processor):.1f} ms")
    print(f"{first} of {len(rows)} found themselves first")
    print(f"{exact} of {settings.checked} answers are those of float64")
    print(f"{held} of {settings.checked * settings.k} vectors of those are in the answers")


def write(folder: Path, settings: Settings, draw: np.random.Generator) -> None:
    """The copy of vectors, beside a shard that it claims to be of."""
    write_shard(shard_path(folder, 0), [Record("k", {"json": {}})], {})
    finish(folder, streams=["audio"])
    vectors = np.empty((settings.vectors, settings.width), np.float32)
    means = draw.standard_normal((settings.clusters, settings.width), np.float32) + 3
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK]
        part[:] = draw.standard_normal(part.shape, np.float32)
        if settings.clusters == 1:
            part += 3
        else:
            part *= 0.3
            part += means[draw.integers(0, settings.clusters, len(part))]
    table = pa.table({"key": [f"clip-{number}" for number in range(len(vectors))]})
    write_copy(folder, Embeddings(vectors, table, {}), ShardSet(folder).digest)


def nearest(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> list[int]:
    """By float64, all of them."""
    asked = query.astype(np.float64)
    cosines = np.empty(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        part = vectors[start : start + BLOCK].astype(np.float64)
        cosines[start : start + BLOCK] = part @ asked / np.linalg.norm(part, axis=1)
    order: list[int] = np.argsort(-cosines, kind="stable")[:k].tolist()
    return order


if __name__ == "__main__":
    main()
