"""Exact search against a double loop in float64, ties and filters by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.prepared import described, embedding, example, write_embeddings, write_prepared
from numpy.typing import NDArray

from mmembed.data.shards.layout import Record
from mmembed.embeddings.search import EmbeddingSearch, Sources, VectorIndex, describe_labels
from mmembed.errors import CorruptError, UsageError


def brute_force(vectors: NDArray[np.float32], query: NDArray[np.float32], k: int) -> list[int]:
    """Rows by exactly rounded sums, nearest first, of equal ones the earlier first."""

    def dot(x: list[float], y: list[float]) -> float:
        return math.fsum(a * b for a, b in zip(x, y, strict=True))

    asked = query.tolist()
    cosines = []
    for row, vector in enumerate(vectors.tolist()):
        norm = math.sqrt(dot(vector, vector) * dot(asked, asked))
        cosines.append((-dot(vector, asked) / norm if norm else 0.0, row))
    return [row for _, row in sorted(cosines)[:k]]


@pytest.mark.parametrize("offset", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("k", [1, 7, 60, 99])
def test_the_answer_is_that_of_a_double_loop(offset: float, k: int) -> None:
    """The larger the offset the more alike all cosines are, to 1e-7 at 50."""
    draw = np.random.default_rng(k)
    vectors = (draw.standard_normal((60, 33)) + offset).astype(np.float32)
    index = VectorIndex(vectors)
    for query in (draw.standard_normal(33) + offset).astype(np.float32), vectors[17]:
        hits = index.nearest(query, k)
        assert [hit.row for hit in hits] == brute_force(vectors, query, k)
        exact = vectors.astype(float) @ query.astype(float)
        exact /= np.linalg.norm(vectors.astype(float), axis=1) * np.linalg.norm(query.astype(float))
        np.testing.assert_allclose([h.cosine for h in hits], exact[[h.row for h in hits]], 1e-12)


def test_each_vector_finds_itself_first() -> None:
    """Even among copies of itself and of others that differ in the last bit."""
    draw = np.random.default_rng(0)
    vectors = draw.standard_normal((90, 480)).astype(np.float32)
    vectors[30:60] = vectors[:30]
    vectors[60:] = np.nextafter(vectors[:30], np.float32(np.inf))
    index = VectorIndex(vectors)
    for row, vector in enumerate(vectors):
        first, *_ = index.nearest(vector, 3, itself=row)
        assert (first.row, first.cosine) == (row, 1.0)


def test_equal_vectors_come_in_order() -> None:
    """Whatever their place in the blocks of a matrix product, and whatever their length."""
    vectors = np.tile(np.random.default_rng(1).standard_normal(7).astype(np.float32), (101, 1))
    vectors[::3] *= 4  # exact in binary
    assert [hit.row for hit in VectorIndex(vectors).nearest(vectors[0], 101)] == [*range(101)]


def test_by_hand() -> None:
    index = VectorIndex(np.array([[3, 4], [-3, -4], [0, 0], [4, 3], [8, 6]], np.float32))
    hits = index.nearest([1, 0], 5)
    assert [(hit.row, round(hit.cosine, 9)) for hit in hits] == [
        (3, 0.8), (4, 0.8), (0, 0.6), (2, 0.0), (1, -0.6),
    ]  # fmt: skip
    among = np.array([True, True, True, False, False])
    assert [hit.row for hit in index.nearest([1, 0], 2, among)] == [0, 2]
    assert index.nearest([1, 0], 2, np.zeros(5, bool)) == []
    assert [hit.cosine for hit in index.nearest([0, 0], 5)] == [0] * 5


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [([1, 2, 3], 1, r"\(2,\) finite"), ([1, np.nan], 1, "finite"), ([1, 2], 0, "at least 1")],
)
def test_bad_queries_are_refused(query: list[float], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VectorIndex(np.eye(2, dtype=np.float32)).nearest(query, k)


def test_what_is_not_finite_cannot_be_searched(tmp_path: Path) -> None:
    bad = embedding(1, **{"pooled.npy": np.full(8, np.nan, np.float32)})
    write_embeddings(tmp_path, [embedding(0), bad], ["audio"])
    with pytest.raises(CorruptError, match=f"{tmp_path}: vector 1 of 2 is not finite"):
        EmbeddingSearch.open(tmp_path)


@pytest.fixture
def search(tmp_path: Path) -> EmbeddingSearch:
    """Six clips: sad, happy, joy and hope, hope, nothing, sad; of speakers s0 to s5."""
    labels = [{"category": "sad"}, {"category": "happy"}, {"present": ["joy", "hope"]},
              {"present": ["hope"]}, None, {"category": "sad", "sentiment": -2.0}]  # fmt: skip
    records = [described(n, labels=held) for n, held in enumerate(labels)]
    records[1] = described(1, labels=labels[1], split="train")
    return EmbeddingSearch.open(write_embeddings(tmp_path / "e", records, ["audio"]))


@pytest.mark.parametrize(
    ("wanted", "rows"),
    [
        ({"label": "sad"}, [0, 5]),
        ({"label": "hope"}, [2, 3]),
        ({"label": "joy"}, [2]),
        ({"split": "train"}, [1]),
        ({"label": "sad", "speaker": "s5"}, [5]),
    ],
)
def test_filters(search: EmbeddingSearch, wanted: dict[str, str], rows: list[int]) -> None:
    among = search.select(**wanted)
    assert among is not None and np.flatnonzero(among).tolist() == rows
    hits = search.nearest_to(0, 10, among)
    assert sorted(hit.row for hit in hits) == rows


def test_no_filter_and_one_that_nothing_passes(search: EmbeddingSearch) -> None:
    assert search.select() is None
    with pytest.raises(UsageError, match="no clip has label 'sad', split 'train'"):
        search.select(label="sad", split="train")


def test_keys(search: EmbeddingSearch) -> None:
    assert search.row_of("clip-4") == 4
    assert search.row_of("clip-9") is None


def test_labels_in_words(search: EmbeddingSearch) -> None:
    rows = search.embeddings.table.to_pylist()
    assert [describe_labels(row) for row in rows] == [
        "sad", "happy", "joy, hope", "hope", "", "sad, sentiment -2.0",
    ]  # fmt: skip


def test_sources_tell_words_and_show_the_middle_frame(tmp_path: Path) -> None:
    shards = write_prepared(tmp_path, [example(0), example(1, video=None)]) / "shards"
    sources = Sources({"inputs": [str(tmp_path / "gone"), str(tmp_path), str(shards), "s3://b/c"]})
    words, crop = sources.look_up("clip-0", face=True)
    assert words == "good morning"
    np.testing.assert_array_equal(crop, example(0).video[6])
    assert sources.look_up("clip-0") == ("good morning", None)
    assert sources.look_up("clip-1", face=True) == ("so it goes", None)
    assert sources.look_up("clip-2", face=True) == (None, None)
    assert Sources({}).look_up("clip-0") == (None, None)


def test_damaged_sources_are_unknown(tmp_path: Path) -> None:
    shards = write_prepared(tmp_path, [example(0)]) / "shards"
    (tar,) = shards.glob("*.tar")
    tar.write_bytes(bytes(tar.stat().st_size))
    assert Sources({"inputs": [str(shards)]}).look_up("clip-0") == (None, None)
    other = write_embeddings(tmp_path / "e", [Record("clip-0", {"json": {"a": 1}})], ["audio"])
    assert Sources({"inputs": [str(other)]}).look_up("clip-0") == (None, None)
