"""Approximate search: near vectors are found, as near as they are, and parts are kept."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.prepared import embedding, write_embeddings
from numpy.typing import NDArray

from mmembed.embeddings.ivf import KEPT, NPROBE, Partition, open_partition
from mmembed.embeddings.search import EmbeddingSearch, VectorIndex
from mmembed.errors import CorruptError, UsageError

WIDTH = 24


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Sixty heaps of 40 vectors each, side by side, around a common mean."""
    draw = np.random.default_rng(0)
    heaps = draw.standard_normal((60, 1, WIDTH)) + 1
    return (heaps + 0.1 * draw.standard_normal((60, 40, WIDTH))).reshape(-1, WIDTH).astype("f4")


@pytest.fixture(scope="module")
def partition(vectors: NDArray[np.float32]) -> Partition:
    return Partition.of(vectors)


def test_every_vector_is_in_one_part(vectors: NDArray[np.float32], partition: Partition) -> None:
    assert partition.centres.shape == (49, WIDTH)  # the square root of 2400
    np.testing.assert_allclose(np.linalg.norm(partition.centres, axis=1), 1, rtol=1e-5)
    assert sorted(partition.order) == list(range(len(vectors)))
    assert partition.bounds[0] == 0 and partition.bounds[-1] == len(vectors)
    nearest = (vectors @ partition.centres.T).argmax(1)
    for part in range(49):
        rows = partition.order[partition.bounds[part] : partition.bounds[part + 1]]
        assert (nearest[rows] == part).all()


def test_what_is_near_is_found_with_its_exact_cosine(
    vectors: NDArray[np.float32], partition: Partition
) -> None:
    exact, approximate = VectorIndex(vectors), VectorIndex(vectors, partition)
    draw = np.random.default_rng(1)
    for row in draw.integers(0, len(vectors), 50):
        query = vectors[row] + 0.05 * draw.standard_normal(WIDTH)
        assert approximate.nearest(query, 10) == exact.nearest(query, 10)
        assert approximate.nearest(vectors[row], 1, itself=row)[0].row == row


def test_only_some_parts_are_looked_into(partition: Partition) -> None:
    """The nearest, until they hold as many vectors as 16 of usual size."""
    query = partition.centres[7].astype(float)
    parts = np.argsort(-(partition.centres @ partition.centres[7]))
    sizes = np.diff(partition.bounds)[parts].cumsum()
    looked = int(np.searchsorted(sizes, NPROBE * 2400 / 49)) + 1
    held = [partition.order[slice(*partition.bounds[[p, p + 1]])] for p in parts[:looked]]
    assert parts[0] == 7 and looked < 30
    assert partition.near(query, 10, None).tolist() == np.concatenate(held).tolist()


def test_a_filter_is_searched_to_its_end(
    vectors: NDArray[np.float32], partition: Partition
) -> None:
    """Where few may be found they lie anywhere; itself comes only where it may."""
    among = np.zeros(len(vectors), bool)
    among[[3, 900, 2000]] = True
    exact, approximate = VectorIndex(vectors), VectorIndex(vectors, partition)
    for row in (3, 4):
        found = approximate.nearest(vectors[row], 10, among, itself=row)
        assert found == exact.nearest(vectors[row], 10, among, itself=row)
        assert len(found) == 3
    assert approximate.nearest(vectors[3], 10, ~among | among, itself=3)[0].row == 3
    assert not approximate.nearest(vectors[3], 10, among & ~among)


def test_it_is_kept_and_made_anew_when_it_does_not_fit(
    tmp_path: Path, vectors: NDArray[np.float32], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_embeddings(tmp_path, [embedding(n) for n in range(9)], ["audio"])
    first = EmbeddingSearch.open(folder, approximate=True)
    kept = (folder / KEPT).read_bytes()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "faiss", None)
        again = EmbeddingSearch.open(folder, approximate=True)
        assert again.nearest_to(4, 3) == first.nearest_to(4, 3)
        (folder / KEPT).write_bytes(kept[:-8] + b"\0" * 7 + b"\1")
        with pytest.raises(UsageError, match=r"needs pip install 'mmembed\[faiss\]'"):
            EmbeddingSearch.open(folder, approximate=True)
    EmbeddingSearch.open(folder, approximate=True)
    assert (folder / KEPT).read_bytes() == kept
    held = first.embeddings.vectors
    assert Partition.read(folder, "of other shards", held) is None
    other = open_partition(folder, held)
    assert [*other.order] == [*Partition.of(held).order]


@pytest.mark.parametrize(
    "change",
    [
        {"order": np.array([0, 1, 9])},
        {"order": np.array([0, 1, -1])},
        {"order": np.array([0, 1, 1])},
        {"order": np.array([0, 1])},
        {"order": np.array([0.0, 1.0, 2.0])},
        {"bounds": np.array([0, 4, 3])},
        {"bounds": np.array([0, -(2**62), 3])},
        {"bounds": np.array([-1, 2, 3])},
        {"bounds": np.array([0, 3])},
        {"bounds": np.array([0])},
        {"centres": np.zeros((2, 3), np.float32)},
        {"centres": np.full((2, 4), np.nan, np.float32)},
        {"centres": np.zeros((2, 4), np.int64)},
        {"centres": np.zeros(8, np.float32)},
    ],
)
def test_forged_parts_are_passed_over(tmp_path: Path, change: dict[str, NDArray[Any]]) -> None:
    """Their checksums fit, as a forger sees to."""
    good = {
        "centres": np.eye(4, dtype=np.float32)[:2],
        "order": np.array([0, 2, 1]),
        "bounds": np.array([0, 2, 3]),
    }
    held = np.ones((3, 4), np.float32)
    Partition(**good).write(tmp_path, "digest")  # type: ignore[arg-type]
    assert Partition.read(tmp_path, "digest", held) is not None
    Partition(**{**good, **change}).write(tmp_path, "digest")  # type: ignore[arg-type]
    assert Partition.read(tmp_path, "digest", held) is None


def test_what_is_not_finite_has_no_place() -> None:
    vectors = np.ones((5, 3), np.float32)
    vectors[3, 1] = np.inf
    with pytest.raises(CorruptError, match="vector 3 of 5 is not finite"):
        Partition.of(vectors)
