"""Which rows of a stream of features belong to which interval of time.

The rule of the CMU multimodal SDK (`mmdataset.align`): a row belongs to every reference interval
that it overlaps by more than 1e-5 s; a row on a boundary belongs to both sides, and an interval
shorter than that has no rows. An average over the rows of an interval does not weigh them by their
duration.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

EPSILON: Final = 1e-5  # seconds of overlap that count as none

Intervals = NDArray[np.float64]
"""(T, 2): start and end in seconds."""


def overlapping(rows: Intervals, reference: Intervals) -> list[NDArray[np.int64]]:
    """For every reference interval the numbers of its rows, by start time.

    Args:
        rows: (T, 2), in any order; they may overlap one another.
        reference: (N, 2).

    Returns:
        N arrays, empty where nothing overlaps.
    """
    order = np.flatnonzero(longer_than_nothing(rows))
    order = order[np.argsort(rows[order, 0], kind="stable")]
    starts, ends = rows[order, 0], rows[order, 1]
    # Rows may lie within others: before the first whose running latest end is past the start of
    # the interval none can reach into it, and none can that starts after its end.
    first = np.searchsorted(np.maximum.accumulate(ends), reference[:, 0], side="right")
    last = np.searchsorted(starts, reference[:, 1], side="left")
    found = []
    for (start, end), low, high in zip(reference, first, last, strict=True):
        shared = np.minimum(ends[low:high], end) - np.maximum(starts[low:high], start)
        found.append(order[low:high][shared > EPSILON])
    return found


def averages(
    features: NDArray[np.float32], rows: Intervals, reference: Intervals
) -> NDArray[np.float32]:
    """The plain mean of the rows of every reference interval, zeros where there are none.

    Args:
        features: (T, D).
        rows: (T, 2), when they are.
        reference: (N, 2), words for instance.

    Returns:
        (N, D).
    """
    means = np.zeros((len(reference), features.shape[1]), np.float32)
    for number, members in enumerate(overlapping(rows, reference)):
        if len(members):
            means[number] = features[members].mean(axis=0, dtype=np.float64)
    return means


def longer_than_nothing(intervals: Intervals) -> NDArray[np.bool_]:
    """(N,) True for intervals that have finite ends and last longer than `EPSILON`."""
    lasts = intervals[:, 1] - intervals[:, 0] > EPSILON
    return lasts & np.isfinite(intervals).all(axis=1)
