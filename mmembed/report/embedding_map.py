"""A map of the embeddings: clips that the encoder finds alike lie close together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from mmembed.report import plots
from mmembed.report.run_folder import Json, Points

COMPONENTS = 50  # kept before t-SNE, as its authors advise
PERPLEXITY = 30.0
ITERATIONS = 500
MIN_POINTS = 5  # fewer make no map


def embedding_map(points: Points | None) -> Json | None:
    """The map, coloured by speaker, by emotion and by sentiment, whichever are known."""
    if points is None or len(points.vectors) < MIN_POINTS:
        return None
    kinds = {"speaker": points.speakers, "strongest emotion": points.emotion}
    by_name = {f"by {kind}": names for kind, names in kinds.items() if any(names)}
    known = bool(np.isfinite(points.sentiment).any())
    by_value = {"by sentiment": points.sentiment} if known else {}
    if not by_name and not by_value:
        by_name = {"all clips": [""] * len(points.vectors)}
    return {
        "points": points,
        "components": COMPONENTS,
        "plot": plots.maps(flat_map(points.vectors), by_name, by_value),
        "legends": {k.split()[-1]: plots.colours_of(n) for k, n in kinds.items() if any(n)},
        "by_sentiment": known,
    }


def flat_map(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, D) embeddings -> (N, 2) positions, the same for the same vectors.

    PCA and then t-SNE (van der Maaten and Hinton, JMLR 9, 2008), started from the first two
    principal components.
    """
    count, width = vectors.shape
    standard = StandardScaler().fit_transform(vectors.astype(np.float64))
    reduced = PCA(min(COMPONENTS, count - 1, width), svd_solver="full").fit_transform(standard)
    perplexity = min(PERPLEXITY, (count - 1) / 3)
    tsne = TSNE(
        perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=0, method="barnes_hut"
    )
    return np.asarray(tsne.fit_transform(reduced), np.float64)
