"""The classification task of MTEB, as MAEB has it for sound: a few training clips of each class.

What is followed is `AbsTaskClassification` of MTEB 2 with `is_cross_validation` (as of July 2025):

- `KFold(n_splits=5, shuffle=True, random_state=42)` over the clips in the order of their folder.
- Of the training part of each fold, 8 clips of each class: the places of the first training part
  are shuffled with `RandomState(42)`, and in each later fold the order of the fold before is
  shuffled again with a new `RandomState(42)`; of this order the first 8 clips of each class are
  taken. So a place that only a later, larger training part has is never taken.
- `LogisticRegression(max_iter=100)` of scikit-learn on the vectors as they are.
- Accuracy and macro F1, mean over the folds.

The vector of a clip is `pooled`: mean and standard deviation over time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from mmembed.errors import UsageError
from mmembed.protocols.protocol import EmotionProtocol, TestedFold
from mmembed.studies.embeddings_data import EmbeddedClips, Rows
from mmembed.studies.probe import Names

SEED: Final = 42
FOLDS: Final = 5
CLIPS_OF_A_CLASS: Final = 8
MAX_ITER: Final = 100


@dataclass(frozen=True)
class Maeb(EmotionProtocol):
    """See the module."""

    name = "maeb"
    about = (
        f"classification as in MTEB: {FOLDS} folds of clips, {CLIPS_OF_A_CLASS} training clips of "
        "each class, logistic regression on one vector a clip"
    )
    part = "pooled"

    def folds(self, clips: EmbeddedClips, labels: Names) -> list[TestedFold]:
        """Five.

        Raises:
            UsageError: fewer clips than folds, or one class alone among those to learn from.
        """
        vectors = torch.cat([*clips.steps[""]]).numpy()
        if len(vectors) < FOLDS:
            raise UsageError(f"{FOLDS} folds need as many clips, found {len(vectors)}")
        split = KFold(n_splits=FOLDS, shuffle=True, random_state=SEED).split(vectors)
        folds: list[TestedFold] = []
        order: list[int] = []
        for number, (train, test) in enumerate(split, start=1):
            order = order or [*range(len(train))]
            np.random.RandomState(SEED).shuffle(order)
            few = train[first_of_each(labels[train], order)]
            if len({*labels[few]}) < 2:
                raise UsageError(f"fold {number} has training clips of one class alone")
            model = LogisticRegression(max_iter=MAX_ITER, random_state=SEED)
            with warnings.catch_warnings():  # the protocol stops there, converged or not
                warnings.simplefilter("ignore", ConvergenceWarning)
                model.fit(vectors[few], labels[few])
            folds.append(TestedFold(few, test, model.predict(vectors[test]), str(number)))
        return folds


def first_of_each(labels: Names, order: Sequence[int]) -> Rows:
    """(n,) the first clips of each class, `CLIPS_OF_A_CLASS` at most, in this order."""
    taken: Counter[str] = Counter()
    places = []
    for place in order:
        if taken[labels[place]] < CLIPS_OF_A_CLASS:
            places.append(place)
            taken[labels[place]] += 1
    return np.array(places, np.int64)
