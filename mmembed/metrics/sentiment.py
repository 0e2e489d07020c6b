"""Scores of sentiment and emotions by the conventions of CMU-MOSEI and CH-SIMS.

The conventions for MOSEI are those of its data kit,
https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, and of the tables that cite it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mmembed.metrics.classes import (
    Floats,
    Indices,
    Metric,
    _majority,
    _pair,
    accuracy,
    unweighted_average_recall,
    weighted_f1,
)

_ROUNDING: Final = 1e-6  # relative; some units of the last place of float32
SENTIMENT_BOUND = 3  # sentiment lies in [-3, 3]


def pearson(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Pearson correlation in [-1, 1]; 0 where one side is constant.

    Constant up to the rounding of float32: a network that predicts the same for all items may
    do so with other last digits for each, which differ from processor to processor.
    """
    x, y = (np.asarray(side, np.float64) for side in _pair(truth, predicted))
    if any(np.ptp(side) <= _ROUNDING * np.abs(side).max() for side in (x, y)):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def emotion_scores(truth: ArrayLike, predicted: ArrayLike, threshold: float) -> dict[str, float]:
    """The MOSEI scores of one emotion, as a question of present or absent.

    Args:
        truth: (N,) in [0, 3]; the emotion is present where it is above 0.
        predicted: (N,) any real numbers.
        threshold: predicted present where above it.

    Returns:
        wa, the weighted accuracy (TP N / P + TN) / (2 N) with P present and N absent items, which
        is the mean of both recalls (chance 0.5; with one side empty, the recall of the other);
        f1, weighted by the support of both sides.
    """
    present, shown = _pair(np.asarray(truth) > 0, np.asarray(predicted) > threshold)
    return {"wa": unweighted_average_recall(present, shown), "f1": weighted_f1(present, shown)}


def majority_emotion_scores(train_truth: ArrayLike, truth: ArrayLike) -> dict[str, float]:
    """`emotion_scores` of the majority class (present or absent) in training."""
    majority = _majority(np.asarray(train_truth) > 0)
    return emotion_scores(truth, np.full(np.shape(truth), majority), 0.5)


def best_constant(train_truth: ArrayLike, metric: str) -> float:
    """The constant prediction of sentiment that is best on (N,) training truth.

    The mean for "mae" (and "correlation", where every constant has 0), else a value of the majority
    class.

    Args:
        train_truth: (N,).
        metric: of `SENTIMENT_METRICS` or `SIMS_METRICS`.
    """
    train = np.asarray(train_truth, np.float64)
    if metric not in _CLASSES:
        return float(train.mean())
    classes = _CLASSES[metric]
    train = train[train != 0] if classes.polar else train
    return classes.values[int(_majority(classes.number(train)))]


class _Classes(NamedTuple):
    """How a metric cuts sentiment into classes.

    Attributes:
        number: of each value the number of its class.
        values: one of each class.
        polar: items whose truth is 0 are left out.
    """

    number: Callable[[Floats], Indices]
    values: tuple[float, ...]
    polar: bool = False


def _up_to(*upper: float) -> Callable[[Floats], Indices]:
    """Classes by the upper bounds of all but the last.

    In float32, as labels are stored: 0.1 is not above the bound 0.1.
    """
    bounds = np.array(upper, np.float32)
    return lambda x: np.digitize(x.astype(np.float32), bounds, right=True).astype(np.int64)


def _rounded(bound: int) -> Callable[[Floats], Indices]:
    """Classes of sentiment clipped to [-bound, bound] and rounded, halves to even."""
    return lambda x: np.rint(np.clip(x, -bound, bound)).astype(np.int64) + bound


_NONNEGATIVE = _Classes(lambda x: (x >= 0).astype(np.int64), (-1.0, 1.0))
_POSITIVE = _Classes(lambda x: (x > 0).astype(np.int64), (-1.0, 1.0), polar=True)
_TWO = _Classes(_up_to(0.0), (-1.0, 1.0))
_CLASSES: Final[Mapping[str, _Classes]] = {
    "acc2_nonneg": _NONNEGATIVE,
    "f1_nonneg": _NONNEGATIVE,
    "acc2_pos": _POSITIVE,
    "f1_pos": _POSITIVE,
    "acc7": _Classes(_rounded(SENTIMENT_BOUND), (-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0)),
    "acc5_rounded": _Classes(_rounded(2), (-2.0, -1.0, 0.0, 1.0, 2.0)),
    "acc2": _TWO,
    "weighted_f1": _TWO,
    "acc3": _Classes(_up_to(-0.1, 0.1), (-1.0, 0.0, 1.0)),
    "acc5": _Classes(_up_to(-0.7, -0.1, 0.1, 0.7), (-1.0, -0.4, 0.0, 0.4, 1.0)),
}


def _of_classes(name: str) -> Metric:
    """The metric of a name in `_CLASSES`: accuracy, or weighted F1."""
    score, (number, _, polar) = weighted_f1 if "f1" in name else accuracy, _CLASSES[name]

    def metric(x: Floats, y: Floats) -> float:
        if polar:
            x, y = x[x != 0], y[x != 0]
            if not len(x):
                return float("nan")
        return score(number(x), number(y))

    return metric


def _mae(x: Floats, y: Floats) -> float:
    return float(np.abs(x - y).mean())


def _in_unit(metric: Metric) -> Metric:
    """Of both sides clipped to [-1, 1]."""
    return lambda x, y: metric(np.clip(x, -1, 1), np.clip(y, -1, 1))


SENTIMENT_METRICS: Final[Mapping[str, Metric]] = {
    "correlation": pearson,
    "mae": _mae,
    **{
        name: _of_classes(name)
        for name in ("acc2_nonneg", "f1_nonneg", "acc2_pos", "f1_pos", "acc7", "acc5_rounded")
    },
}
"""The metrics of a sentiment regression on CMU-MOSEI, for truth in [-3, 3] and predictions (N,).

correlation: see `pearson`. mae: mean absolute error, predictions not clipped. acc2_nonneg and
f1_nonneg: accuracy and weighted F1 of (>= 0) against (< 0), all items. acc2_pos and f1_pos: of
(> 0) against (<= 0), without the items whose truth is 0; NaN when there is no other. acc7: both
sides clipped to [-3, 3] and rounded, halves to even, then compared. (The README of the MOSEI kit
rounds by sign and ceiling instead.) acc5_rounded: the same with [-2, 2], MMSA's Acc-5; CH-SIMS has
another one.
"""

SIMS_METRICS: Final[Mapping[str, Metric]] = {
    "correlation": _in_unit(pearson),
    "mae": _in_unit(_mae),
    **{n: _of_classes(n) for n in ("acc2", "weighted_f1", "acc3", "acc5")},
}
"""The metrics of a sentiment regression on CH-SIMS, by the conventions of MMSA
(github.com/thuiar/MMSA, `eval_sims_regression`), for truth in [-1, 1] and predictions (N,).

mae and correlation: both sides clipped to [-1, 1]. acc2 and weighted_f1: (<= 0) against (> 0), all
items. acc3: up to -0.1, up to 0.1, above. acc5: up to -0.7, -0.1, 0.1, 0.7, above. Before 2021-04
MMSA swapped truth and prediction of F1.
"""
