"""Metrics of one class an item: accuracy, recall, F1.

scikit-learn has the same, and the tests compare them. A bootstrap calls a metric thousands of
times, and scikit-learn takes 15 to 100 times as long, mostly to check its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Metric = Callable[[NDArray[Any], NDArray[Any]], float]


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Fraction of items whose class is right."""
    truth, predicted = _pair(truth, predicted)
    return float(np.mean(truth == predicted))


def unweighted_average_recall(truth: ArrayLike, predicted: ArrayLike) -> float:
    """UAR: the mean over classes of (hits of the class / items of the class); chance is 1 / C.

    Classes without a true item have no recall and are left out of the mean.
    """
    truth, predicted = _pair(truth, predicted)
    hits = truth == predicted
    return float(np.mean([hits[truth == name].mean() for name in np.unique(truth)]))


def weighted_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of each class, 2 TP / (items + predictions), averaged with the items as weights."""
    truth, predicted = _pair(truth, predicted)
    total = 0.0
    for name in np.unique(truth):
        is_true, is_predicted = truth == name, predicted == name
        support = is_true.sum()
        total += support * 2 * (is_true & is_predicted).sum() / (support + is_predicted.sum())
    return float(total / len(truth))


def _majority(labels: NDArray[np.generic]) -> float:
    """The most frequent label, the smallest of equals; of nothing, 0."""
    if not len(labels):
        return 0.0
    names, counts = np.unique(labels, return_counts=True)
    return float(names[counts.argmax()])


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.generic], ...]:
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and predicted {predicted.shape} differ in shape")
    if not len(truth):
        raise ValueError("no items: a score of nothing is not defined")
    return truth, predicted
