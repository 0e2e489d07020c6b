"""Scores of sentiment and emotions by the conventions of CMU-MOSEI and CH-SIMS.

The conventions for MOSEI are those of its data kit,
https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, and of the tables that cite it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

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
    """Pearson correlation in [-1, 1]; 0 where one side is constant, since it then tells nothing.

    Constant up to the rounding of float32: a network that answers all items alike may do so with
    other last digits for each, which differ from processor to processor.
    """
    x, y = (np.asarray(side, np.float64) for side in _pair(truth, predicted))
    if any(np.ptp(side) <= _ROUNDING * np.abs(side).max() for side in (x, y)):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def emotion_scores(
    truth: ArrayLike, predicted: ArrayLike, names: Sequence[str], threshold: ArrayLike
) -> dict[str, dict[str, float]]:
    """The MOSEI scores of each emotion, as a question of present or absent.

    Args:
        truth: (N, E) in [0, 3]; an emotion is present where it is above 0.
        predicted: (N, E) any real numbers.
        names: E emotions.
        threshold: one number or (E,); predicted present where above it.

    Returns:
        For each name: wa, the weighted accuracy (TP N / P + TN) / (2 N) with P present and N
        absent items, which is the mean of both recalls (chance 0.5; with one side empty, the
        recall of the other); f1, weighted by the support of both sides.
    """
    present, shown = _pair(np.asarray(truth) > 0, np.asarray(predicted) > np.asarray(threshold))
    if present.ndim != 2 or present.shape[1] != len(names):
        raise ValueError(f"emotions need shape (N, {len(names)}), found {present.shape}")
    return {
        name: {
            "wa": unweighted_average_recall(present[:, e], shown[:, e]),
            "f1": weighted_f1(present[:, e], shown[:, e]),
        }
        for e, name in enumerate(names)
    }


def constant_sentiment(train_truth: ArrayLike) -> dict[str, float]:
    """Score -> the constant answer that is best for it in the training split.

    The mean for `mae` (and `correlation`, where every constant has 0), the majority class for each
    class score.
    """
    train = np.asarray(train_truth, np.float64)
    nonneg = 1.0 if _majority(train >= 0) else -1.0
    pos = 1.0 if _majority(train[train != 0] > 0) else -1.0
    return {
        "mae": float(train.mean()),
        "correlation": float(train.mean()),
        "acc2_nonneg": nonneg,
        "f1_nonneg": nonneg,
        "acc2_pos": pos,
        "f1_pos": pos,
        "acc7": _majority(_seven(train)),
    }


def constant_sims(train_truth: ArrayLike) -> dict[str, float]:
    """As `constant_sentiment` for the scores of CH-SIMS: the mean, or a number of the majority."""
    train = np.asarray(train_truth, np.float64)
    two = (-1.0, 1.0)[int(_majority(_class(train, _TWO)))]
    return {
        "mae": float(train.mean()),
        "correlation": float(train.mean()),
        "acc2": two,
        "weighted_f1": two,
        "acc3": (-1.0, 0.0, 1.0)[int(_majority(_class(train, _THREE)))],
        "acc5": (-1.0, -0.4, 0.0, 0.4, 1.0)[int(_majority(_class(train, _FIVE)))],
    }


def majority_emotions(
    train_truth: ArrayLike, truth: ArrayLike, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """`emotion_scores` of each emotion's majority class (present or absent) in training."""
    often = [float(_majority(column)) for column in (np.asarray(train_truth) > 0).T]
    return emotion_scores(truth, np.tile(often, (len(np.asarray(truth)), 1)), names, 0.5)


def _seven(values: Floats) -> Floats:
    return np.asarray(np.rint(np.clip(values, -SENTIMENT_BOUND, SENTIMENT_BOUND)))  # halves to even


_TWO, _THREE, _FIVE = (0.0,), (-0.1, 0.1), (-0.7, -0.1, 0.1, 0.7)


def _class(values: Floats, upper: Sequence[float]) -> Indices:
    """Of each value the number of its class; `upper` are the upper bounds of all but the last.

    In float32, as labels are stored: 0.1 is not above the bound 0.1.
    """
    classes = np.digitize(values.astype(np.float32), np.array(upper, np.float32), right=True)
    return classes.astype(np.int64)


def _in_unit(score: Metric) -> Metric:
    """Of both sides clipped to [-1, 1]."""
    return lambda x, y: score(np.clip(x, -1, 1), np.clip(y, -1, 1))


def _of_polar(score: Metric) -> Metric:
    """Of (> 0) against (<= 0), without the items whose truth is 0."""

    def scored(x: Floats, y: Floats) -> float:
        polar = x != 0
        return score(x[polar] > 0, y[polar] > 0) if polar.any() else float("nan")

    return scored


SENTIMENT_METRICS: Final[Mapping[str, Metric]] = {
    "correlation": pearson,
    "mae": lambda x, y: float(np.abs(x - y).mean()),
    "acc2_nonneg": lambda x, y: accuracy(x >= 0, y >= 0),
    "f1_nonneg": lambda x, y: weighted_f1(x >= 0, y >= 0),
    "acc2_pos": _of_polar(accuracy),
    "f1_pos": _of_polar(weighted_f1),
    "acc7": lambda x, y: accuracy(_seven(x), _seven(y)),
}
"""The metrics of a sentiment regression on CMU-MOSEI, for truth in [-3, 3] and predictions (N,).

correlation: see `pearson`. mae: mean absolute error, predictions not clipped. acc2_nonneg and
f1_nonneg: accuracy and weighted F1 of (>= 0) against (< 0), all items. acc2_pos and f1_pos: of
(> 0) against (<= 0), without the items whose truth is 0; NaN when there is no other. acc7: both
sides clipped to [-3, 3] and rounded, halves to even, then compared. (The README of the MOSEI kit
rounds by sign and ceiling instead.)
"""


SIMS_METRICS: Final[Mapping[str, Metric]] = {
    "correlation": _in_unit(pearson),
    "mae": _in_unit(lambda x, y: float(np.abs(x - y).mean())),
    "acc2": lambda x, y: accuracy(_class(x, _TWO), _class(y, _TWO)),
    "weighted_f1": lambda x, y: weighted_f1(_class(x, _TWO), _class(y, _TWO)),
    "acc3": lambda x, y: accuracy(_class(x, _THREE), _class(y, _THREE)),
    "acc5": lambda x, y: accuracy(_class(x, _FIVE), _class(y, _FIVE)),
}
"""The metrics of a sentiment regression on CH-SIMS, by the conventions of MMSA
(github.com/thuiar/MMSA, `eval_sims_regression`), for truth in [-1, 1] and predictions (N,).

mae and correlation: both sides clipped to [-1, 1]. acc2 and weighted_f1: (<= 0) against (> 0), all
items. acc3: up to -0.1, up to 0.1, above. acc5: up to -0.7, -0.1, 0.1, 0.7,
above. Before 2021-04 MMSA swapped truth and prediction of F1.
"""
