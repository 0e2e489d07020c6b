"""Alignment by intervals, against hand-worked values and a plain double loop."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.features.intervals import EPSILON, averages, longer_than_nothing, overlapping


def by_hand(rows: np.ndarray, reference: np.ndarray) -> list[list[int]]:
    """Row by row and interval by interval."""
    order = sorted(range(len(rows)), key=lambda row: rows[row][0])
    return [
        [row for row in order if min(rows[row][1], end) - max(rows[row][0], start) > EPSILON]
        for start, end in reference
    ]


def intervals(*pairs: tuple[float, float]) -> np.ndarray:
    return np.array(pairs, float).reshape(-1, 2)


def test_a_row_belongs_to_every_interval_it_overlaps() -> None:
    rows = intervals((0, 1), (1, 2), (2, 3), (3, 4))
    reference = intervals((0.5, 2.5), (1, 2), (2, 2), (3.5, 9), (4, 5), (-1, 0.5))
    found = [list(members) for members in overlapping(rows, reference)]
    assert found == [[0, 1, 2], [1], [], [3], [], [0]]


def test_an_overlap_of_a_hundred_thousandth_of_a_second_is_none() -> None:
    reference = intervals((1, 2))
    for overlap, expected in ((0.9e-5, 0), (1.1e-5, 1), (-1e-6, 0)):
        assert len(overlapping(intervals((0, 1 + overlap)), reference)[0]) == expected
        assert len(overlapping(intervals((2 - overlap, 3)), reference)[0]) == expected


@pytest.mark.parametrize("seed", range(40))
def test_it_equals_a_double_loop(seed: int) -> None:
    draw = np.random.default_rng(seed)
    count, segments = draw.integers(0, 40, 2)
    # On a coarse grid, so that ends meet, rows nest and last for nothing.
    starts, lasts = draw.integers(-3, 12, count), draw.integers(0, 6, count)
    rows = np.stack([starts, starts + lasts], axis=1) / 3
    starts, lasts = draw.integers(-3, 12, segments), draw.integers(0, 6, segments)
    reference = np.stack([starts, starts + lasts], axis=1) / 3
    found = [list(members) for members in overlapping(rows, reference)]
    assert found == by_hand(rows, reference)


def test_times_that_are_no_numbers_overlap_nothing() -> None:
    rows = intervals((np.nan, 1), (0, np.nan), (0, 1), (0, np.inf))
    reference = intervals((0, 2), (np.nan, 1))
    assert [list(members) for members in overlapping(rows, reference)] == [[2], []]
    assert longer_than_nothing(rows).tolist() == [False, False, True, False]


def test_averages_do_not_weigh_by_duration() -> None:
    rows = intervals((0, 1), (1, 1.1), (1.1, 4))
    features = np.array([[1, 10], [2, 20], [6, 60]], np.float32)
    words = intervals((0.5, 2), (5, 6), (1.05, 1.08))
    expected = [[3, 30], [0, 0], [2, 20]]
    np.testing.assert_array_equal(averages(features, rows, words), np.array(expected, np.float32))
