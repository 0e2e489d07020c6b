"""A linear probe over speaker-independent folds: how much a frozen vector tells, and nothing else.

Every row of a table gets the same probe. For each fold the vectors of all layers, mean and
deviation, are standardised with the training part; a ridge regression onto +1 for the class and -1
for all others is fitted; its strength is chosen on folds of training speakers alone. All items are
predicted once, by a model that never heard their speaker. Where a speaker is not known folds keep
the dialogue together, else each clip stands for itself.

Ridge, because it is solved exactly: a logistic regression on thousands of standardised columns was
still unfinished after 300 iterations, so that its result was partly the solver's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import bootstrap_interval, count_groups, plural
from mmembed.metrics.classes import unweighted_average_recall
from mmembed.studies.embeddings_data import read_folder

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
        groups: (N,) who speaks, or what else keeps items together, see `grouping`.
        layers: columns of `vectors` of each layer, by name.
        grouping: what the groups are, see `mmembed.studies.groups`.
    """

    vectors: Vectors
    labels: Names
    groups: Names
    layers: Mapping[str, slice]
    grouping: str = "speaker"


def read_labelled(folder: Path, speakers: Sequence[str] = ()) -> Labelled:
    """The records of an embedding folder that carry a category, of the named speakers or of all.

    Raises:
        UsageError: there is none, or it holds no vectors of utterances.
    """

    def wanted(row: Utterance) -> bool:
        return bool(row.labels.category) and (not speakers or row.speaker in speakers)

    clips = read_folder(folder, wanted)
    if not len(clips):
        raise UsageError(f"{folder}: holds no labelled record of these speakers")
    steps = torch.stack([*clips.steps[""]])
    count, width = steps.shape[1:]
    groups = clips.groups(range(len(clips)))
    names = clips.layers or tuple(map(str, range(count)))
    return Labelled(
        steps.flatten(1).numpy().astype(np.float64),
        clips.categories,
        np.array(groups.names),
        {name: slice(at * width, (at + 1) * width) for at, name in enumerate(names)},
        groups.kind,
    )


def centre_speakers(data: Labelled) -> Labelled:
    """The same without each speaker's mean vector: what is usual for a speaker says no emotion.

    Needs no label, but several clips of whoever is asked about, of various emotions.

    Raises:
        UsageError: it is not known of all items who speaks.
    """
    if data.grouping != "speaker":
        raise UsageError(
            f"--centre-speakers: items are known by {data.grouping}; it needs the speaker of each"
        )
    vectors = data.vectors.copy()
    for speaker in set(data.groups.tolist()):
        own = data.groups == speaker
        vectors[own] -= vectors[own].mean(0)
    return replace(data, vectors=vectors)


def group_folds(groups: Names, folds: int, grouping: str = "speaker") -> list[NDArray[np.bool_]]:
    """(N,) masks of the held-out items: groups in alphabetical order, dealt out in turn.

    Raises:
        UsageError: fewer groups than folds.
    """
    names = sorted(set(groups.tolist()))
    if len(names) < folds:
        found = count_groups(len(names), grouping)
        raise UsageError(f"{folds} folds need as many {plural(grouping)}, found {found}")
    return [np.isin(groups, names[fold::folds]) for fold in range(folds)]


def cross_predict(data: Labelled, folds: int) -> Names:
    """(N,) the class of each item as told by a probe that never met its group."""
    vectors, labels, groups = data.vectors, data.labels, data.groups
    predicted = labels.copy()
    for held_out in group_folds(groups, folds, data.grouping):
        train = ~held_out
        inner = group_folds(groups[train], INNER_FOLDS, data.grouping)
        strength = _choose_strength(vectors[train], labels[train], inner)
        predicted[held_out] = _fit_predict(
            vectors[train], labels[train], vectors[held_out], [strength]
        )[strength]
    return predicted


def probe(data: Labelled, *, folds: int) -> dict[str, Any]:
    """UAR with its interval over groups, recalls and confusion of the probe on all layers.

    Raises:
        UsageError: fewer groups than folds, or one class alone.
    """
    classes = sorted(set(data.labels.tolist()))
    if len(classes) < 2:
        raise UsageError(f"all items are {classes[0]}: there is nothing to tell apart")
    predicted = cross_predict(data, folds)

    def uar(rows: NDArray[np.int64]) -> float:
        return unweighted_average_recall(data.labels[rows], predicted[rows])

    groups = len(set(data.groups.tolist()))
    interval = bootstrap_interval(uar, data.groups.tolist(), kind=data.grouping)
    return {
        "uar": uar(np.arange(len(predicted))),
        "low": interval.low,
        "high": interval.high,
        "note": interval.note,
        "chance": 1 / len(classes),
        "items": len(predicted),
        "groups": groups,
        "grouping": data.grouping,
        **({"speakers": groups} if data.grouping == "speaker" else {}),
        "classes": classes,
        "confusion": confusion_matrix(data.labels, predicted, labels=classes).tolist(),
    }


def _choose_strength(vectors: Vectors, labels: Names, folds: Sequence[NDArray[np.bool_]]) -> float:
    found = {strength: labels.copy() for strength in STRENGTHS}
    for held_out in folds:
        answers = _fit_predict(vectors[~held_out], labels[~held_out], vectors[held_out], STRENGTHS)
        for strength, answer in answers.items():
            found[strength][held_out] = answer
    best: float = max(STRENGTHS, key=lambda s: unweighted_average_recall(labels, found[s]))
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
