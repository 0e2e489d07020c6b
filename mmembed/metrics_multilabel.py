"""Scores of several labels an item, and F1 of single classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools = NDArray[np.bool_]


def jaccard(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over items of |both| / |either|; an item with no label on either side counts 1.

    The "accuracy" of SemEval-2018 Task 1 E-c (Mohammad et al. 2018).

    Args:
        truth: (N, E) present or not.
        predicted: (N, E) likewise.
    """
    expected, found = _pair(truth, predicted)
    either = (expected | found).sum(1)
    both = (expected & found).sum(1)
    return float(np.where(either == 0, 1.0, both / np.maximum(either, 1)).mean())


def label_f1(truth: ArrayLike, predicted: ArrayLike) -> NDArray[np.float64]:
    """(E,) F1 of each label, 2 TP / (items + predictions); 0 where it is on neither side."""
    expected, found = _pair(truth, predicted)
    sides = expected.sum(0) + found.sum(0)
    scores: NDArray[np.float64] = 2 * (expected & found).sum(0) / np.maximum(sides, 1)
    return scores


def macro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """The mean of `label_f1` over labels."""
    return float(label_f1(truth, predicted).mean())


def micro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of all labels of all items taken together."""
    expected, found = _pair(truth, predicted)
    return float(2 * (expected & found).sum() / max(1, int(expected.sum() + found.sum())))


def one_hot(classes: ArrayLike, count: int) -> Bools:
    """(N,) class numbers -> (N, count) true where the item is of the class."""
    hot: Bools = np.asarray(classes)[:, None] == np.arange(count)
    return hot


def best_constant(truth: Bools, score: str) -> Bools:
    """(E,) the labels which, always answered, score best on (N, E).

    Only sets of the most frequent labels are tried, of every size.
    """
    often = np.argsort(-truth.mean(0), kind="stable")
    candidates = [
        np.isin(np.arange(truth.shape[1]), often[:size]) for size in range(len(often) + 1)
    ]
    scores = [SCORES[score](truth, np.broadcast_to(c, truth.shape)) for c in candidates]
    return candidates[int(np.argmax(scores))]


SCORES = {"macro_f1": macro_f1, "micro_f1": micro_f1, "jaccard": jaccard}


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[Bools, Bools]:
    expected, found = np.asarray(truth, bool), np.asarray(predicted, bool)
    if expected.shape != found.shape or expected.ndim != 2:
        raise ValueError(
            f"truth {expected.shape} and predicted {found.shape} need one shape (N, E)"
        )
    if not len(expected):
        raise ValueError("no items: a score of nothing is not defined")
    return expected, found
