"""Metrics of several labels an item, and F1 of single classes.

Truth is (N, E): above 0 = present, NaN = not known, which counts neither for a prediction nor
against it. scikit-learn has no such label, and is 14 to 30 times as slow inside a bootstrap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Bools = NDArray[np.bool_]


def jaccard(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Mean over items of |both| / |either|; an item with no label on either side counts 1.

    The "accuracy" of SemEval-2018 Task 1 E-c (Mohammad et al. 2018). Items of which no label is
    known are left out; NaN where there is no other.

    Args:
        truth: (N, E), see above.
        predicted: (N, E) present or not.
    """
    expected, shown = _pair(truth, predicted)
    either = (expected | shown).sum(1)
    both = (expected & shown).sum(1)
    return _mean(np.where(either == 0, 1.0, both / np.maximum(either, 1)), _known(truth).any(1))


def label_f1(truth: ArrayLike, predicted: ArrayLike, neither: float = 0.0) -> NDArray[np.float64]:
    """(E,) F1 of each label, 2 TP / (items + predictions).

    `neither` where it is on neither side; NaN where nothing of it is known.
    """
    expected, shown = _pair(truth, predicted)
    sides = expected.sum(0) + shown.sum(0)
    scores: NDArray[np.float64] = 2 * (expected & shown).sum(0) / np.maximum(sides, 1)
    return np.where(_known(truth).any(0), np.where(sides == 0, neither, scores), np.nan)


def macro_f1(truth: ArrayLike, predicted: ArrayLike, neither: float = 0.0) -> float:
    """The mean of `label_f1` over the labels that are known of any item; NaN where none is.

    A label that is on neither side counts 0, as in scikit-learn and so in the script of
    SemEval-2018 Task 1 (github.com/felipebravom/SemEval_2018_Task_1_Eval).
    """
    scores = label_f1(truth, predicted, neither)
    return _mean(scores, ~np.isnan(scores))


def macro_f1_neither_1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """`macro_f1`, where a label that is on neither side counts 1: the convention of the released
    code of Demux on SemEval-2018 (`zero_division=1`), not on GoEmotions.
    """
    return macro_f1(truth, predicted, 1.0)


def micro_f1(truth: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of all labels of all items taken together."""
    expected, shown = _pair(truth, predicted)
    return float(2 * (expected & shown).sum() / max(1, int(expected.sum() + shown.sum())))


def label_auroc(truth: ArrayLike, predicted: ArrayLike) -> NDArray[np.float64]:
    """(E,) area under the ROC curve: how often a present one is scored above an absent one.

    Equal scores count half, so that a constant has 0.5. NaN where nothing known is present, or
    nothing absent.

    Args:
        truth: (N, E), see above.
        predicted: (N, E) scores, of any scale.
    """
    expected, scores = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    _check(expected, scores)
    return np.array([_auroc(*columns) for columns in zip(expected.T, scores.T, strict=True)])


def _auroc(truth: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """By ranks (Mann and Whitney 1947), equal scores sharing their mean rank."""
    known = ~np.isnan(truth)
    present = truth[known] > 0
    _, order, counts = np.unique(scores[known], return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[order]
    hits, misses = int(present.sum()), int((~present).sum())
    if not hits or not misses:
        return float("nan")
    return float((ranks[present].sum() - hits * (hits + 1) / 2) / (hits * misses))


def auroc(truth: ArrayLike, predicted: ArrayLike) -> float:
    """The mean of `label_auroc` over the labels that have one; NaN where none has."""
    areas = label_auroc(truth, predicted)
    return _mean(areas, ~np.isnan(areas))


def best_constant(truth: ArrayLike, metric: str) -> Bools:
    """(E,) the labels which, predicted for every item, score best on (N, E); none if none is known.

    Only sets of the most frequent labels are tried, of every size.
    """
    expected = np.asarray(truth, np.float64)
    known = ~np.isnan(expected)
    order = np.argsort(-(expected > 0).sum(0) / known.sum(0).clip(1), kind="stable")
    if not known.any():
        return np.zeros(len(order), bool)
    candidates = [np.isin(np.arange(len(order)), order[:size]) for size in range(len(order) + 1)]
    scores = [METRICS[metric](expected, np.broadcast_to(c, expected.shape)) for c in candidates]
    return candidates[int(np.argmax(scores))]


METRICS = {
    "macro_f1": macro_f1,
    "micro_f1": micro_f1,
    "jaccard": jaccard,
    "macro_f1_neither_0": macro_f1,
    "macro_f1_neither_1": macro_f1_neither_1,
}
"""Name -> metric. A study takes "macro_f1" over the labels that some test item shows, which leaves
no label on neither side; the other two are over all labels, by either convention.
"""


def _pair(truth: ArrayLike, predicted: ArrayLike) -> tuple[Bools, Bools]:
    expected, shown = np.asarray(truth, np.float64), np.asarray(predicted, bool)
    _check(expected, shown)
    return expected > 0, shown & ~np.isnan(expected)


def _known(truth: ArrayLike) -> Bools:
    return ~np.isnan(np.asarray(truth, np.float64))


def _mean(scores: NDArray[np.float64], chosen: ArrayLike) -> float:
    """Of the chosen ones; of none, NaN."""
    known = scores[np.asarray(chosen, bool)]
    return float(known.mean()) if len(known) else float("nan")


def _check(expected: NDArray[np.float64], shown: NDArray[np.generic]) -> None:
    if expected.shape != shown.shape or expected.ndim != 2:
        raise ValueError(
            f"truth {expected.shape} and predicted {shown.shape} need one shape (N, E)"
        )
    if not len(expected):
        raise ValueError("no items: a score of nothing is not defined")
