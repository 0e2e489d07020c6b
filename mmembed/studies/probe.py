"""A linear probe over speaker-independent folds: what of a class can be read off frozen vectors.

Every row of a table gets the same probe. For each fold the vectors of all layers (mean and standard
deviation) are standardised with the training part; a ridge regression onto +1 for the class and -1
for all others is fitted; its strength is chosen on folds of training speakers alone. All items are
predicted once, by a model that was trained without their speaker. Where a speaker is not known,
folds keep the dialogue together, else each clip stands for itself.

Ridge, because it is solved exactly: a logistic regression on thousands of standardised columns was
still unfinished after 300 iterations, so that its result was partly the solver's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import bootstrap_interval
from mmembed.metrics.classes import unweighted_average_recall
from mmembed.studies.baselines import ridge
from mmembed.studies.embeddings_data import EmbeddedClips, read_folder
from mmembed.studies.splits import group_folds

# Penalties, in units of the mean squared length of the standardised vectors: 1e-3 to 10.
PENALTIES: Final[Sequence[float]] = tuple(10.0 ** (half / 2) for half in range(-6, 3))
INNER_FOLDS: Final = 4

Vectors = NDArray[np.float64]
Names = NDArray[np.str_]


@dataclass(frozen=True)
class Labelled:
    """Vectors with one class each.

    Attributes:
        vectors: (N, W) all layers side by side.
        labels: (N,) class names.
        groups: (N,) speakers, or what else keeps items together, see `grouping`.
        grouping: what the groups are, see `mmembed.studies.groups`.
        bounds: columns at which a further stream begins; streams count alike.
    """

    vectors: Vectors
    labels: Names
    groups: Names
    grouping: str = "speaker"
    bounds: tuple[int, ...] = ()


def read_labelled(folder: Path | str, speakers: Sequence[str] = ()) -> Labelled:
    """The records of an embedding folder that carry a category, of the named speakers or of all.

    Raises:
        UsageError: there is none, or it holds no vectors of utterances.
    """

    def wanted(row: Utterance) -> bool:
        return bool(row.labels.category) and (not speakers or row.speaker in speakers)

    clips = read_folder(folder, wanted)
    if not len(clips):
        raise UsageError(f"{folder}: holds no labelled record of these speakers")
    return labelled(clips, clips.categories)


def labelled(clips: EmbeddedClips, labels: Names) -> Labelled:
    """All layers of clips, which have all streams, with these (N,) classes."""
    everyone = np.arange(len(clips))
    streams = [torch.stack(clips.values(name, everyone)).flatten(1) for name in clips.steps]
    groups = clips.groups(everyone)
    vectors = torch.cat(streams, 1).numpy().astype(np.float64)
    ends = np.cumsum([stream.shape[1] for stream in streams]).tolist()
    return Labelled(vectors, labels, np.array(groups.names), groups.kind, tuple(ends[:-1]))


def centre_speakers(data: Labelled) -> Labelled:
    """The same without each speaker's mean vector: what is usual for a speaker is no emotion.

    Needs no label, but several clips of each speaker, of various emotions.

    Raises:
        UsageError: the speaker of some item is not known.
    """
    if data.grouping != "speaker":
        raise UsageError(
            f"--centre-speakers: items are grouped by {data.grouping}; it needs the speaker of each"
        )
    vectors = data.vectors.copy()
    for speaker in set(data.groups.tolist()):
        own = data.groups == speaker
        vectors[own] -= vectors[own].mean(0)
    return replace(data, vectors=vectors)


def cross_predict(data: Labelled, folds: int) -> Names:
    """(N,) the class of each item, predicted by a probe that never met its group."""
    vectors, labels, groups = data.vectors, data.labels, data.groups
    predicted = labels.copy()
    for held_out in group_folds(groups, folds, data.grouping):
        train = vectors[~held_out], labels[~held_out]
        inner = group_folds(groups[~held_out], INNER_FOLDS, data.grouping)
        penalty = _choose_penalty(*train, inner, data.bounds)
        (predicted[held_out],) = _predict(*train, vectors[held_out], [penalty], data.bounds)
    return predicted


def probe(data: Labelled, *, folds: int) -> dict[str, Any]:
    """UAR with its interval over groups, recalls and confusion of the probe on all layers.

    Raises:
        UsageError: fewer groups than folds, or one class alone.
    """
    classes = sorted(set(data.labels.tolist()))
    if len(classes) < 2:
        raise UsageError(f"all items are {classes[0]}: there is nothing to tell apart")
    return scores_of(data, cross_predict(data, folds))


def scores_of(data: Labelled, predicted: Names) -> dict[str, Any]:
    """As `probe`, of the (N,) classes that it predicts."""
    classes = sorted(set(data.labels.tolist()))

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


def _choose_penalty(
    vectors: Vectors, labels: Names, folds: Sequence[NDArray[np.bool_]], bounds: Sequence[int]
) -> float:
    """The one of the highest UAR over all folds together."""
    predicted = np.empty((len(PENALTIES), len(labels)), labels.dtype)
    for held_out in folds:
        train = vectors[~held_out], labels[~held_out]
        predicted[:, held_out] = _predict(*train, vectors[held_out], PENALTIES, bounds)
    scores = [unweighted_average_recall(labels, one) for one in predicted]
    return PENALTIES[int(np.argmax(scores))]


def _predict(
    train: Vectors,
    labels: Names,
    test: Vectors,
    penalties: Sequence[float],
    bounds: Sequence[int],
) -> Names:
    """(S, N') classes of `test`, by one ridge regression for each penalty."""
    classes, numbers = np.unique(labels, return_inverse=True)
    targets = 2.0 * np.eye(len(classes))[numbers] - 1
    predicted: Names = classes[ridge((train, targets), test, penalties, bounds).argmax(2)]
    return predicted
