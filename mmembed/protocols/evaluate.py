"""A protocol on embeddings of one corpus: its scores, its leaks, and what holds on unseen speakers.

Beside the score of each protocol stands that of `Honest` on the same clips and classes. Of several
folders with the same clips the speaker-independent scores are compared in pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import bootstrap_interval, count_groups
from mmembed.metrics.classes import accuracy, unweighted_average_recall
from mmembed.protocols.honest import Honest
from mmembed.protocols.protocol import EmotionProtocol, Leak, TestedFold, leak_of
from mmembed.studies.embeddings_data import EmbeddedClips, Part, read_folder
from mmembed.studies.feature_clips import beside, streams_alone
from mmembed.studies.probe import Names, labelled, scores_of

Scores = Mapping[str, float]
"""accuracy, uar and macro_f1."""


@dataclass(frozen=True)
class UnseenSpeakers:
    """What the speaker-independent probe predicts.

    Attributes:
        predicted: (N,) classes.
        speakers: (N,) of the clips.
        result: as `mmembed.studies.probe.probe` gives it.
    """

    predicted: Names
    speakers: Names
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """A protocol on the embeddings of one folder.

    Attributes:
        keys: N, of the clips.
        labels: (N,) their classes.
        folds: of the protocol.
        leaks: of each fold.
        scores: of the protocol.
        honest: the speaker-independent figure; None where a note says why there is none.
        notes: what was left out, and why there is no speaker-independent figure.
    """

    keys: tuple[str, ...]
    labels: Names
    folds: tuple[TestedFold, ...]
    leaks: tuple[Leak, ...]
    scores: Scores
    honest: UnseenSpeakers | None
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Scores, folds with their leaks, the speaker-independent figure, notes."""
        folds = [
            {
                "name": fold.name,
                "train": len(fold.train),
                "test": len(fold.test),
                "test_speakers": None if leak.unknown else leak.speakers,
                "test_speakers_in_training": None if leak.unknown else leak.shared,
                "clips_without_speaker": leak.unknown,
                **class_scores(self.labels[fold.test], fold.predicted),
            }
            for fold, leak in zip(self.folds, self.leaks, strict=True)
        ]
        return {
            "clips": len(self.keys),
            **self.scores,
            "folds": folds,
            "honest": self.honest.result if self.honest else None,
            "notes": [*self.notes],
        }


def evaluate(folder: str, protocol: EmotionProtocol, unseen: Honest) -> Evaluation:
    """Follow a protocol on a folder of embedding shards.

    Args:
        folder: of one stream subset, here or behind a URL.
        protocol: what is followed.
        unseen: the protocol of the speaker-independent figure.

    Raises:
        UsageError: the folder lacks a part that is needed, or the protocol cannot be followed.
    """
    clips, left_out = _read(folder, protocol, protocol.part)
    return _evaluate(folder, clips, left_out, protocol, unseen)


def evaluate_beside(
    folder: str, features: EmbeddedClips, where: str, protocol: Honest
) -> dict[str, Evaluation]:
    """Embeddings alone, precomputed features of the same clips alone, and both together.

    All three are of the clips that both hold.

    Args:
        folder: of embedding shards.
        features: see `mmembed.studies.feature_clips`.
        where: what they were read from.
        protocol: what is followed; the streams count alike, however wide they are.

    Returns:
        By name: the folder, `where`, and both.

    Raises:
        UsageError: no clip is in both, or the protocol cannot be followed.
    """
    clips, left_out = _read(folder, protocol, protocol.part)
    if not len(clips):
        raise UsageError(f"{folder}: holds no clip with a class")
    both = beside(clips, features, where)
    notes = [f"{count_groups(len(clips) - len(both), 'clip')} without features left out"]
    notes = notes if len(clips) > len(both) else []
    streams = {
        folder: (*clips.steps,),
        where: (*features.steps,),
        f"{folder} + {where}": (*both.steps,),
    }
    found = {}
    for name, some in streams.items():
        one = _evaluate(name, streams_alone(both, some), left_out, protocol, protocol)
        found[name] = replace(one, notes=(*one.notes, *notes))
    return found


def _evaluate(
    folder: str,
    clips: EmbeddedClips,
    left_out: list[Utterance],
    protocol: EmotionProtocol,
    unseen: Honest,
) -> Evaluation:
    if not len(clips):
        why = "".join(f"; {note}" for note in protocol.notes((), left_out))
        raise UsageError(f"{folder}: holds no clip with a class{why}")
    labels = np.array([protocol.class_of(row) for row in clips.utterances])
    if len({*labels}) < 2:
        raise UsageError(f"{folder}: all clips are {labels[0]}: there is nothing to tell apart")
    notes = protocol.notes(clips.utterances, left_out)
    try:
        folds = protocol.folds(clips, labels)
    except UsageError as error:
        raise UsageError(f"{folder}: {protocol.name}: {error}") from None
    layers = clips if protocol.part == "layers" else _read(folder, protocol, "layers")[0]
    try:
        held_out = folds if isinstance(protocol, Honest) else unseen.folds(layers, labels)
        honest = _unseen_speakers(layers, labels, held_out)
        notes += [honest.result["note"]] if honest.result["note"] else []
    except UsageError as error:
        honest = None
        notes.append(f"no speaker-independent figure: {error}")
    return Evaluation(
        clips.keys,
        labels,
        tuple(folds),
        tuple(leak_of(fold, clips) for fold in folds),
        _scores(labels, folds, protocol.mean_over_folds),
        honest,
        tuple(notes),
    )


def class_scores(truth: Names, predicted: Names) -> Scores:
    """Accuracy (WA), unweighted average recall (UA, balanced accuracy) and macro F1.

    Macro F1 is the mean over the classes that are true or predicted of some clip.
    """
    macro = f1_score(truth, predicted, average="macro", zero_division=0)
    return {
        "accuracy": accuracy(truth, predicted),
        "uar": unweighted_average_recall(truth, predicted),
        "macro_f1": float(macro),
    }


def difference(first: Evaluation, other: Evaluation) -> dict[str, Any] | None:
    """How much higher the speaker-independent UAR of `other` is, with its interval over speakers.

    Returns:
        "mean", "low", "high" and "note" as in `mmembed.metrics.bootstrap.Interval`; None where one
        of them has no such figure, or where they are not of the same clips.
    """
    if first.honest is None or other.honest is None:
        return None
    place = {key: number for number, key in enumerate(other.keys)}
    if {*first.keys} != {*other.keys}:
        return None
    order = np.array([place[key] for key in first.keys])
    if (first.labels != other.labels[order]).any():
        return None
    truth, ours, theirs = first.labels, first.honest.predicted, other.honest.predicted[order]

    def gap(rows: NDArray[np.int64]) -> float:
        return unweighted_average_recall(truth[rows], theirs[rows]) - unweighted_average_recall(
            truth[rows], ours[rows]
        )

    interval = bootstrap_interval(gap, first.honest.speakers.tolist(), kind="speaker")
    return {"mean": gap(np.arange(len(truth))), **vars(interval)}


def _read(
    folder: str, protocol: EmotionProtocol, part: Part
) -> tuple[EmbeddedClips, list[Utterance]]:
    """Clips with a class, and the rows of those without."""
    left_out: list[Utterance] = []

    def wanted(row: Utterance) -> bool:
        if protocol.class_of(row):
            return True
        left_out.append(row)
        return False

    return read_folder(folder, wanted, part), left_out


def _unseen_speakers(
    clips: EmbeddedClips, labels: Names, folds: list[TestedFold]
) -> UnseenSpeakers:
    data = labelled(clips, labels)
    predicted = labels.copy()
    for fold in folds:
        predicted[fold.test] = fold.predicted
    return UnseenSpeakers(predicted, data.groups, scores_of(data, predicted))


def _scores(labels: Names, folds: list[TestedFold], mean_over_folds: bool) -> Scores:
    if mean_over_folds:
        each = [class_scores(labels[fold.test], fold.predicted) for fold in folds]
        return {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}
    truth = np.concatenate([labels[fold.test] for fold in folds])
    return class_scores(truth, np.concatenate([fold.predicted for fold in folds]))
