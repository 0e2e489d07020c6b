"""The confusion matrix of a report: rows are true, columns predicted, shades fractions of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mmembed.data.manifest.utterance import EMOTIONS


@dataclass(frozen=True)
class ConfusionMatrix:
    """What `templates/confusion_matrix.html` draws.

    Attributes:
        names: of the C classes.
        rows: C of C cells: (count, fraction of the row's items).
        items: how many there are in all.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[tuple[int, float]]]
    items: int

    @classmethod
    def of(cls, truth: Sequence[str], predicted: Sequence[str], names: Sequence[str]) -> Self:
        """Count N items by their true and their predicted names."""
        counts = confusion_matrix(truth, predicted, labels=names)
        fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        pairs = zip(counts.tolist(), fractions.tolist(), strict=True)
        return cls(names, [list(zip(*pair, strict=True)) for pair in pairs], len(truth))


def strongest_emotions(
    truth: NDArray[np.float64], predicted: NDArray[np.float64]
) -> ConfusionMatrix | None:
    """The strongest emotion of each utterance that has one; None where none has.

    Args:
        truth: (N, E) in [0, 3], NaN = not known.
        predicted: (N, E).
    """
    some = (truth > 0).any(axis=1) & ~np.isnan(truth).any(axis=1)
    if not some.any():
        return None
    names = np.array(EMOTIONS)
    true, guessed = (names[values[some].argmax(axis=1)] for values in (truth, predicted))
    return ConfusionMatrix.of(true, guessed, EMOTIONS)
