"""Scores of one class an item: accuracy, recall, F1, confusion matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


Indices = NDArray[np.int64]


Score = Callable[[NDArray[Any], NDArray[Any]], float]


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Share of items whose class is right."""
    expected, found = _pair(truth, predicted)
    return float(np.mean(expected == found))


def confusion_matrix(truth: ArrayLike, predicted: ArrayLike, classes: Sequence[object]) -> Indices:
    """(C, C) counts, row = true class, column = predicted class, in the order of `classes`.

    Raises:
        ValueError: a label is not among `classes`.
    """
    expected, found = _pair(truth, predicted)
    place = {name: index for index, name in enumerate(classes)}
    unknown = {*expected.tolist(), *found.tolist()} - place.keys()
    if unknown:
        raise ValueError(f"labels {sorted(map(str, unknown))} are not among the classes {classes}")
    matrix = np.zeros((len(place), len(place)), np.int64)
    rows = [place[name] for name in expected.tolist()]
    columns = [place[name] for name in found.tolist()]
    np.add.at(matrix, (rows, columns), 1)
    return matrix


def unweighted_average_recall(
    truth: ArrayLike, predicted: ArrayLike, classes: Sequence[object]
) -> float:
    """UAR: the mean over classes of (hits of the class / items of the class); chance is 1 / C.

    Classes without a true item have no recall and are left out of the mean.
    """
    matrix = confusion_matrix(truth, predicted, classes)
    support = matrix.sum(axis=1)
    present = support > 0
    return float(np.mean(matrix.diagonal()[present] / support[present]))


def weighted_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of each class, 2 TP / (items + predictions), averaged with the items as weights."""
    expected, found = _pair(truth, predicted)
    total = 0.0
    for name in np.unique(expected):
        is_true, is_found = expected == name, found == name
        support = is_true.sum()
        total += support * 2 * (is_true & is_found).sum() / (support + is_found.sum())
    return float(total / len(expected))


def _majority(labels: NDArray[np.generic]) -> float:
    """The most frequent label, the smallest of equals; of nothing, 0."""
    if not len(labels):
        return 0.0
    names, counts = np.unique(labels, return_counts=True)
    return float(names[counts.argmax()])


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.generic], ...]:
    expected, found = np.asarray(truth), np.asarray(predicted)
    if expected.shape != found.shape:
        raise ValueError(f"truth {expected.shape} and predicted {found.shape} differ in shape")
    if not len(expected):
        raise ValueError("no items: a score of nothing is not defined")
    return expected, found
