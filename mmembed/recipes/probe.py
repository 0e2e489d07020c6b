"""A linear probe over speaker-independent folds: how much a frozen vector tells, and nothing else.

Every row of a table gets the same probe. For each fold the vectors of all layers, mean and
deviation, are standardised with the training part; a ridge regression onto +1 for the class and -1
for all others is fitted; its strength is chosen on folds of training speakers alone. All items are
predicted once, by a model that never heard their speaker.

Ridge, because it is solved exactly: a logistic regression on thousands of standardised columns was
still unfinished after 300 iterations, so that its result was partly the solver's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.shards import ShardSet
from mmembed.errors import UsageError
from mmembed.metrics import bootstrap_interval, confusion_matrix, unweighted_average_recall

# Penalties, in units of the mean squared length of the standardised vectors: 1e-3 to 10.
STRENGTHS: Final = tuple(10.0 ** (half / 2) for half in range(-6, 3))
INNER_FOLDS: Final = 4

Vectors = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Labelled:
    """Vectors with one class each.

    Attributes:
        vectors: (N, W) all layers side by side.
        labels: (N,) class names.
        speakers: (N,).
        layers: columns of `vectors` of each layer, by name.
    """

    vectors: Vectors
    labels: Names
    speakers: Names
    layers: Mapping[str, slice]


def read_labelled(folder: Path, speakers: Sequence[str] = ()) -> Labelled:
    """The records of an embedding folder that carry a category, of the named speakers or of all.

    Raises:
        UsageError: there is none.
    """
    shards = ShardSet(folder)
    rows = []
    for index in range(len(shards)):
        if speakers and shards.meta(index)["speaker"] not in speakers:
            continue
        members = shards.read(index, ["layers.npy", "json"]).members
        described, layers = members["json"], members["layers.npy"]
        assert isinstance(described, dict) and isinstance(layers, np.ndarray)
        category = (described["labels"] or {}).get("category")
        if category:
            rows.append((layers, category, described["speaker"]))
    if not rows:
        raise UsageError(f"{folder}: holds no labelled record of these speakers")
    _, width = rows[0][0].shape
    return Labelled(
        np.stack([row[0].reshape(-1) for row in rows]).astype(np.float64),
        np.array([row[1] for row in rows]),
        np.array([row[2] for row in rows]),
        {
            name: slice(place * width, (place + 1) * width)
            for place, name in enumerate(shards.manifest["layers"])
        },
    )


def centre_speakers(data: Labelled) -> Labelled:
    """The same without each speaker's mean vector: what is usual for a speaker says no emotion.

    Needs no label, but several clips of whoever is asked about, of various emotions.
    """
    vectors = data.vectors.copy()
    for speaker in set(data.speakers.tolist()):
        own = data.speakers == speaker
        vectors[own] -= vectors[own].mean(0)
    return replace(data, vectors=vectors)


def speaker_folds(speakers: Names, folds: int) -> list[NDArray[np.bool_]]:
    """(N,) masks of the held-out items: speakers in alphabetical order, dealt out in turn.

    Raises:
        UsageError: fewer speakers than folds.
    """
    names = sorted(set(speakers.tolist()))
    if len(names) < folds:
        raise UsageError(f"{folds} folds need as many speakers, found {len(names)}")
    return [np.isin(speakers, names[fold::folds]) for fold in range(folds)]


def cross_predict(vectors: Vectors, labels: Names, speakers: Names, folds: int) -> Names:
    """(N,) the class of each item as told by a probe that never heard its speaker."""
    predicted = labels.copy()
    for held_out in speaker_folds(speakers, folds):
        train = ~held_out
        strength = _choose_strength(vectors[train], labels[train], speakers[train])
        predicted[held_out] = _fit_predict(
            vectors[train], labels[train], vectors[held_out], [strength]
        )[strength]
    return predicted


def probe(data: Labelled, *, folds: int) -> dict[str, Any]:
    """UAR with its interval over speakers, recalls and confusion of the probe on all layers."""
    classes = sorted(set(data.labels.tolist()))
    predicted = cross_predict(data.vectors, data.labels, data.speakers, folds)

    def uar(rows: NDArray[np.int64]) -> float:
        return unweighted_average_recall(data.labels[rows], predicted[rows], classes)

    interval = bootstrap_interval(uar, data.speakers.tolist(), kind="speaker")
    return {
        "uar": uar(np.arange(len(predicted))),
        "low": interval.low,
        "high": interval.high,
        "note": interval.note,
        "chance": 1 / len(classes),
        "items": len(predicted),
        "speakers": len(set(data.speakers.tolist())),
        "classes": classes,
        "confusion": confusion_matrix(data.labels, predicted, classes).tolist(),
    }


def _choose_strength(vectors: Vectors, labels: Names, speakers: Names) -> float:
    classes = sorted(set(labels.tolist()))
    found = {strength: labels.copy() for strength in STRENGTHS}
    for held_out in speaker_folds(speakers, INNER_FOLDS):
        answers = _fit_predict(vectors[~held_out], labels[~held_out], vectors[held_out], STRENGTHS)
        for strength, answer in answers.items():
            found[strength][held_out] = answer
    best: float = max(STRENGTHS, key=lambda s: unweighted_average_recall(labels, found[s], classes))
    return best


def _fit_predict(
    train: Vectors, labels: Names, test: Vectors, strengths: Sequence[float]
) -> dict[float, Names]:
    """Strength -> predictions for `test`."""
    classes = np.array(sorted(set(labels.tolist())))
    answers = ridge(train, np.where(labels[:, None] == classes, 1.0, -1.0), test, strengths)
    return {s: classes[a.argmax(1)] for s, a in zip(strengths, answers, strict=True)}


def ridge(train: Vectors, target: Vectors, test: Vectors, strengths: Sequence[float]) -> Vectors:
    """(S, N', C) what ridge regressions on standardised vectors answer, one for each strength.

    In the dual: one eigendecomposition of the training items' inner products serves all strengths.

    Args:
        train: (N, W).
        target: (N, C) of them.
        test: (N', W).
        strengths: S penalties, in units of the mean squared length of the standardised vectors.
    """
    mean, scale = train.mean(0), np.maximum(train.std(0), 1e-6)
    standard = (train - mean) / scale
    width = max(1, int((train.std(0) > 1e-6).sum()))  # columns that vary
    squares, turn = np.linalg.eigh(standard @ standard.T / width)
    likeness = (test - mean) / scale @ standard.T / width @ turn
    turned = turn.T @ (target - target.mean(0))
    return np.stack(
        [likeness @ (turned / (squares + s)[:, None]) + target.mean(0) for s in strengths]
    )
