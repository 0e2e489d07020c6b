"""The confusion matrix of a report: rows are true, columns predicted, shades fractions of a row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.report.run_folder import Json


def strongest_emotions(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> Json | None:
    """The strongest emotion of each utterance that has one; None where none has.

    What `templates/confusion_matrix.html` draws: "names" of the C classes; "rows", C of C cells
    (count, fraction of the row's items); "total", how many items there are in all.

    Args:
        truth: (N, E) in [0, 3], NaN = not known.
        predicted: (N, E).
    """
    some = (truth > 0).any(axis=1) & ~np.isnan(truth).any(axis=1)
    if not some.any():
        return None
    strongest, guessed = truth[some].argmax(axis=1), predicted[some].argmax(axis=1)
    counts, fractions = (
        confusion_matrix(strongest, guessed, labels=range(len(EMOTIONS)), normalize=part).tolist()
        for part in (None, "true")
    )
    rows = [list(zip(*pair, strict=True)) for pair in zip(counts, fractions, strict=True)]
    return {"names": EMOTIONS, "rows": rows, "total": len(strongest)}
