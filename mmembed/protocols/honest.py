"""The linear probe on unseen speakers as a protocol: that of `mmembed probe`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmembed.errors import UsageError
from mmembed.protocols.protocol import EmotionProtocol, TestedFold
from mmembed.studies.embeddings_data import EmbeddedClips
from mmembed.studies.probe import Names, cross_predict, labelled
from mmembed.studies.splits import group_folds


@dataclass(frozen=True)
class Honest(EmotionProtocol):
    """Folds of speakers; a ridge regression whose strength is chosen on training speakers alone.

    See `mmembed.studies.probe`.

    Attributes:
        most: number of folds; where there are fewer speakers, each of them is a fold.
    """

    name = "honest"
    about = (
        "linear probe on unseen speakers, on mean and standard deviation of all layers; its "
        "strength is chosen inside the training folds (mmembed probe)"
    )
    part = "layers"
    mean_over_folds = False

    most: int = 8

    def folds(self, clips: EmbeddedClips, labels: Names) -> list[TestedFold]:
        """As many as there are speakers, and `most` at most.

        Raises:
            UsageError: a speaker is not known, or there are too few to choose the strength.
        """
        data = labelled(clips, labels)
        if data.grouping != "speaker":
            unknown = sum(not (row.speaker or "").strip() for row in clips.utterances)
            raise UsageError(
                f"speakers cannot be kept apart: {unknown:,} of {len(clips):,} clips have none"
            )
        number = min(self.most, len(set(data.groups.tolist())))
        predicted = cross_predict(data, number)
        held_out = group_folds(data.groups, number)
        return [
            TestedFold(np.flatnonzero(~test), np.flatnonzero(test), predicted[test], str(index))
            for index, test in enumerate(held_out, start=1)
        ]
