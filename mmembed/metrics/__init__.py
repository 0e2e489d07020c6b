"""Scores: speech recognition, classification, and the CMU-MOSEI conventions for emotion.

Every score is a fraction in [0, 1] (not a percentage) unless its docstring says otherwise, and a
function of all items at once: scores are never averaged over batches. The conventions for MOSEI
are those of its data kit, https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK, and of the
tables that cite it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jiwer
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Score = Callable[[NDArray[Any], NDArray[Any]], float]

MIN_GROUPS: Final = 6
"""For a bootstrap interval or a p-value. Two-sided significance at .05 is out of reach of fewer
groups even where all of them agree: of five, by chance, that has a probability of 2 / 2^5."""

FEW_DRAWS: Final = 0.01  # share of draws without a score that need not be told
_ROUNDING: Final = 1e-6  # relative; some units of the last place of float32
SENTIMENT_BOUND = 3  # sentiment lies in [-3, 3]


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """(substitutions + deletions + insertions) / reference words, over all utterances together.

    May exceed 1. Words are split at white space; nothing is normalised here.

    Raises:
        ValueError: the lists differ in length or the references hold no word.
    """
    _check_transcripts(references, hypotheses)
    return float(jiwer.wer(list(references), list(hypotheses)))


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As `word_error_rate`, over characters, spaces between words included."""
    _check_transcripts(references, hypotheses)
    return float(jiwer.cer(list(references), list(hypotheses)))


def accuracy(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Share of items whose class is right."""
    expected, found = _pair(truth, predicted)
    return float(np.mean(expected == found))


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


def sentiment_scores(truth: ArrayLike, predicted: ArrayLike) -> dict[str, float]:
    """The MOSEI scores of a sentiment regression.

    Args:
        truth: (N,) in [-3, 3].
        predicted: (N,) any real numbers.

    Returns:
        mae: mean absolute error, predictions not clipped.
        correlation: see `pearson`.
        acc2_nonneg, f1_nonneg: accuracy and weighted F1 of (>= 0) against (< 0), all items.
        acc2_pos, f1_pos: of (> 0) against (<= 0), without the items whose truth is 0; NaN when
            there is no other.
        acc7: both sides clipped to [-3, 3] and rounded, halves to even, then compared. (The
            README of the MOSEI kit rounds by sign and ceiling instead.)
    """
    x, y = (np.asarray(side, np.float64) for side in _pair(truth, predicted))
    return {name: score(x, y) for name, score in SENTIMENT_SCORES.items()}


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
    present, found = _pair(np.asarray(truth) > 0, np.asarray(predicted) > np.asarray(threshold))
    if present.ndim != 2 or present.shape[1] != len(names):
        raise ValueError(f"emotions need shape (N, {len(names)}), found {present.shape}")
    return {
        name: {
            "wa": unweighted_average_recall(present[:, e], found[:, e], (False, True)),
            "f1": weighted_f1(present[:, e], found[:, e]),
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


def trivial_emotions(
    train_truth: ArrayLike, truth: ArrayLike, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """`emotion_scores` of each emotion's majority class (present or absent) in training."""
    often = [float(_majority(column)) for column in (np.asarray(train_truth) > 0).T]
    return emotion_scores(truth, np.tile(often, (len(np.asarray(truth)), 1)), names, 0.5)


@dataclass(frozen=True)
class Interval:
    """Where a score lies with a confidence of, by default, 95 %.

    Attributes:
        low: its lower end; None where there is no interval.
        high: its upper end, likewise.
        note: why there is none, or that draws without a score were left out; else "".
    """

    low: float | None
    high: float | None
    note: str = ""


def bootstrap_interval(
    statistic: Callable[[Indices], float],
    groups: Sequence[Hashable],
    *,
    kind: str = "group",
    counted: NDArray[np.bool_] | None = None,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile interval of a score when whole groups (speakers, actors) are drawn again.

    Utterances of one speaker resemble each other, so drawing utterances would promise too narrow
    an interval (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

    Args:
        statistic: item indices (n,) int64, with repetitions, -> the score of these items.
        groups: the group of each item.
        kind: what the groups are, such as "speaker".
        counted: (N,) the items that the score rests on; by default all.
        draws: how many resamples.
        seed: of the draws.
        level: share of the resampled scores between both ends.

    Returns:
        The interval, of `MIN_GROUPS` groups at least; see `percentile_interval`.
    """
    if why := too_few(groups, kind, counted):
        return Interval(None, None, why)
    scores = [statistic(rows) for rows in resamples(groups, draws=draws, seed=seed)]
    return percentile_interval(np.array(scores), level)


def too_few(
    groups: Sequence[Hashable], kind: str = "group", counted: NDArray[np.bool_] | None = None
) -> str:
    """Why groups are too few for an interval or a p-value; "" where they are enough.

    Args:
        groups: the group of each of N items.
        kind: what the groups are.
        counted: (N,) the items that the score rests on; by default all.
    """
    number = num_groups(groups, counted)
    if number >= MIN_GROUPS:
        return ""
    return f"no interval: {count_groups(number, kind)}, {MIN_GROUPS} are needed"


def num_groups(groups: Sequence[Hashable], counted: NDArray[np.bool_] | None = None) -> int:
    """Groups of all items, or of those that are counted (N,)."""
    if counted is None:
        return len({*groups})
    return len({group for group, one in zip(groups, counted, strict=True) if one})


def count_groups(number: int, kind: str) -> str:
    """A number and its groups: "1 speaker", "4 speakers or dialogues"."""
    return f"{number:,} {kind if number == 1 else plural(kind)}"


def plural(kind: str) -> str:
    """Of what the groups are: "speakers or dialogues"."""
    return " or ".join(f"{one}s" for one in kind.split(" or "))


def percentile_interval(scores: Floats, level: float = 0.95) -> Interval:
    """The middle part of resampled scores.

    Args:
        scores: (D,); resamples whose score is NaN are left out, and there is no interval where
            those are more than half.
        level: share of the scores between both ends.
    """
    undefined, draws = int(np.isnan(scores).sum()), len(scores)
    if undefined > draws / 2:
        return Interval(None, None, f"no interval: {undefined} of {draws} draws have no score")
    low, high = np.nanquantile(scores, [(1 - level) / 2, (1 + level) / 2])
    few = undefined <= FEW_DRAWS * draws
    note = "" if few else f"{undefined} of {draws} draws have no score and are left out"
    return Interval(float(low), float(high), note)


def resamples(groups: Sequence[Hashable], *, draws: int = 1000, seed: int = 0) -> Iterator[Indices]:
    """Item indices (n,), with repetitions, of as many groups as there are, drawn by chance.

    Args:
        groups: the group of each item; groups are numbered in the order of their first items, so
            that the same groups and seed give the same draws.
        draws: how many resamples.
        seed: of the draws.
    """
    if not len(groups):
        raise ValueError("no items: a score of nothing is not defined")
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    items = [np.array(indices, np.int64) for indices in members.values()]
    generator = np.random.default_rng(seed)
    for _ in range(draws):
        drawn = generator.integers(len(items), size=len(items))
        yield np.concatenate([items[group] for group in drawn])


def _seven(values: Floats) -> Floats:
    return np.asarray(np.rint(np.clip(values, -SENTIMENT_BOUND, SENTIMENT_BOUND)))  # halves to even


_TWO, _THREE, _FIVE = (0.0,), (-0.1, 0.1), (-0.7, -0.1, 0.1, 0.7)


def _class(values: Floats, upper: Sequence[float]) -> Indices:
    """Of each value the number of its class; `upper` are the upper bounds of all but the last.

    In float32, as labels are stored: 0.1 is not above the bound 0.1.
    """
    classes = np.digitize(values.astype(np.float32), np.array(upper, np.float32), right=True)
    return classes.astype(np.int64)


def _in_unit(score: Score) -> Score:
    """Of both sides clipped to [-1, 1]."""
    return lambda x, y: score(np.clip(x, -1, 1), np.clip(y, -1, 1))


def _of_polar(score: Score) -> Score:
    """Of (> 0) against (<= 0), without the items whose truth is 0."""

    def scored(x: Floats, y: Floats) -> float:
        polar = x != 0
        return score(x[polar] > 0, y[polar] > 0) if polar.any() else float("nan")

    return scored


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


def _check_transcripts(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    if not any(reference.split() for reference in references):
        raise ValueError("the references hold no word: an error rate is not defined")


SENTIMENT_SCORES: Final[Mapping[str, Score]] = {
    "mae": lambda x, y: float(np.abs(x - y).mean()),
    "correlation": pearson,
    "acc2_nonneg": lambda x, y: accuracy(x >= 0, y >= 0),
    "f1_nonneg": lambda x, y: weighted_f1(x >= 0, y >= 0),
    "acc2_pos": _of_polar(accuracy),
    "f1_pos": _of_polar(weighted_f1),
    "acc7": lambda x, y: accuracy(_seven(x), _seven(y)),
}
"""Each of `sentiment_scores` by itself, for truth and predictions (N,): quicker than all."""

SIMS_SCORES: Final[Mapping[str, Score]] = {
    "correlation": _in_unit(pearson),
    "mae": _in_unit(lambda x, y: float(np.abs(x - y).mean())),
    "acc2": lambda x, y: accuracy(_class(x, _TWO), _class(y, _TWO)),
    "weighted_f1": lambda x, y: weighted_f1(_class(x, _TWO), _class(y, _TWO)),
    "acc3": lambda x, y: accuracy(_class(x, _THREE), _class(y, _THREE)),
    "acc5": lambda x, y: accuracy(_class(x, _FIVE), _class(y, _FIVE)),
}
"""The scores of a sentiment regression on CH-SIMS, by the conventions of MMSA
(github.com/thuiar/MMSA, `eval_sims_regression`), for truth in [-1, 1] and predictions (N,).

mae and correlation: both sides clipped to [-1, 1]. acc2 and weighted_f1: (<= 0) against (> 0), all
items. acc3: up to -0.1, up to 0.1, above. acc5: up to -0.7, -0.1, 0.1, 0.7,
above. Before 2021-04 MMSA swapped truth and prediction of F1.
"""
