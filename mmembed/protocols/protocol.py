"""What a protocol of evaluation is: clips with classes -> folds, and what is predicted in each.

A protocol is one file with one class. How clips are read, scores, leaks of speakers and the
speaker-independent figure beside them are the same for all, see `mmembed.protocols.evaluate`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mmembed.data.manifest.utterance import Utterance
from mmembed.metrics.bootstrap import count_groups
from mmembed.studies.embeddings_data import EmbeddedClips, Part, Rows
from mmembed.studies.probe import Names


@dataclass(frozen=True)
class TestedFold:
    """One model of a protocol.

    Attributes:
        train: (n,) the clips that it learned from.
        test: (m,) the clips that it was tested on.
        predicted: (m,) the class of each of them, as predicted.
        name: of the fold.
    """

    train: Rows
    test: Rows
    predicted: Names
    name: str


class EmotionProtocol(ABC):
    """From clips with one class each to folds with predictions.

    Attributes:
        name: on the command line.
        about: what it is and whose, in one line.
        part: of the records that it reads.
        mean_over_folds: whether a score is the mean of the folds' scores; else it is one score over
            the clips of all folds.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    part: ClassVar[Part]
    mean_over_folds: ClassVar[bool] = True

    def class_of(self, row: Utterance) -> str:
        """The class of a clip; "" where the clip is left out."""
        return row.labels.category or ""

    def notes(self, kept: Sequence[Utterance], left_out: Sequence[Utterance]) -> list[str]:
        """What to tell of the clips that are left out."""
        count = count_groups(len(left_out), "clip")
        return [f"{count} without a class left out"] if left_out else []

    @abstractmethod
    def folds(self, clips: EmbeddedClips, labels: Names) -> list[TestedFold]:
        """Train and test a model in each fold.

        Args:
            clips: N of them, of `part`; all have a class.
            labels: (N,) classes, two different ones at least.

        Raises:
            UsageError: the protocol cannot be followed on these clips.
        """


@dataclass(frozen=True)
class Leak:
    """How many of the speakers of a fold's test part were also learned from.

    Attributes:
        speakers: of the test part.
        shared: those of them that are in the training part too.
        unknown: how many clips of the fold have no speaker; where there is one, the leak cannot be
            known.
        clips: of the fold.
    """

    speakers: int
    shared: int
    unknown: int
    clips: int

    def __str__(self) -> str:
        if self.unknown:
            return (
                "which test speakers are in training cannot be known: "
                f"{self.unknown:,} of {count_groups(self.clips, 'clip')} have no speaker"
            )
        verb = "is" if self.speakers == 1 else "are"
        return (
            f"{self.shared:,} of {count_groups(self.speakers, 'test speaker')} {verb} in training"
        )


def leak_of(fold: TestedFold, clips: EmbeddedClips) -> Leak:
    """Compare the speakers of both parts of a fold."""
    train, test = (
        [(clips.utterances[row].speaker or "").strip() for row in part.tolist()]
        for part in (fold.train, fold.test)
    )
    both = {*train} & {*test} - {""}
    return Leak(len({*test} - {""}), len(both), [*train, *test].count(""), len(train) + len(test))
