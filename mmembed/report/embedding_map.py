"""A map of the embeddings: clips that the encoder finds alike lie close together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.preprocessing import StandardScaler

from mmembed.report import plots
from mmembed.report.html import Section, missing, tag
from mmembed.report.run_folder import RunFolder

COMPONENTS = 50  # kept before t-SNE, as its authors advise
PERPLEXITY = 30.0
ITERATIONS = 500
FEWEST = 5  # fewer points make no map


def embedding_map(run: RunFolder) -> Section:
    """The map, coloured by speaker, by emotion and by sentiment, whichever are known."""
    points = run.points
    if points is None or len(points.vectors) < FEWEST:
        return Section("Map of embeddings", "", [missing("Embeddings", "embeddings/")])
    places = flat_map(points.vectors)
    by_name: dict[str, Sequence[str]] = {}
    if any(points.speakers):
        by_name["by speaker"] = points.speakers
    if any(points.emotion):
        by_name["by strongest emotion"] = points.emotion
    known = bool(np.isfinite(points.sentiment).any())
    by_value = {"by sentiment": points.sentiment} if known else {}
    legends = [
        plots.named_legend(names, "speaker" if "speaker" in title else "emotion")
        for title, names in by_name.items()
    ]
    if known:
        legends.append(tag("div", "sentiment -3 ", tag("i", class_="ramp"), " +3", class_="legend"))
    if not by_name and not by_value:
        by_name = {"all clips": [""] * len(places)}
    return Section(
        "Map of embeddings",
        f"Every dot is one of {len(places)} utterances (split: {', '.join(points.splits)}), placed "
        f"by its {points.subset} embedding so that neighbours are alike "
        f"(PCA to at most {COMPONENTS} components, then t-SNE). Only who is near whom carries "
        "meaning, not the axes nor the distances between far groups.",
        [plots.maps(places, by_name, by_value), legends],
    )


def flat_map(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N, D) embeddings -> (N, 2) places, the same for the same vectors.

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
