"""Similarity of representations: linear CKA, layer by layer across languages; layers to anchor.

Linear CKA (Kornblith et al. 2019, arXiv 1905.00414) of n matched items, columns centred:

    CKA(X, Y) = ||Y^T X||_F^2 / (||X^T X||_F ||Y^T Y||_F)

It compares the SAME n items seen by two representations. Clips in two languages are not the same
items, so either they are matched first, by what was said (`matched_means`: vowels, sentences), or
the covariances of both sets are compared in their one feature space (`covariance_similarity`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def linear_cka(x: ArrayLike, y: ArrayLike) -> float:
    """Linear CKA in [0, 1]; unchanged by rotation, isotropic scale and shift of either side.

    With few items and many features it is high whatever the features mean (independent noise gives
    about D / (n + D)): compare values of one n with each other, not with 0.

    Args:
        x: (n, D_x), row i of both sides the same item.
        y: (n, D_y).

    Returns:
        The similarity; 0 where a side does not vary.
    """
    a, b = _centred(x), _centred(y)
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise ValueError(f"CKA needs (n, D) of the same n items, found {a.shape} and {b.shape}")
    return _normed(np.square(b.T @ a).sum(), np.linalg.norm(a.T @ a), np.linalg.norm(b.T @ b))


def covariance_similarity(x: ArrayLike, y: ArrayLike) -> float:
    """Cosine of two covariance matrices, in [0, 1]: linear CKA with features as the items.

    For unmatched sets in one feature space: the same layer of one backbone, in two languages. This
    is what CORAL pulls together, freed of scale.

    Args:
        x: (n_x, D), n_x at least 2.
        y: (n_y, D).
    """
    a, b = (centred.T @ centred / (len(centred) - 1) for centred in (_centred(x), _centred(y)))
    if a.shape != b.shape:
        raise ValueError(f"both sides need the same features, found {a.shape[:1]}, {b.shape[:1]}")
    return _normed(np.sum(a * b), np.linalg.norm(a), np.linalg.norm(b))


def layer_similarity(
    source: ArrayLike, target: ArrayLike, metric: Callable[[Floats, Floats], float] = linear_cka
) -> Floats:
    """(L, L) similarity of every source layer (row) with every target layer (column).

    Args:
        source: (n, L, D).
        target: (m, L, D).
        metric: `linear_cka` of items that match one by one, n = m; or `covariance_similarity` of
            items that do not. Values off the diagonal then mean something only where all layers
            share one feature space, as the layers of a residual stream nearly do.
    """
    x, y = np.asarray(source, np.float64), np.asarray(target, np.float64)
    return np.array(
        [[metric(x[:, i], y[:, j]) for j in range(y.shape[1])] for i in range(x.shape[1])]
    )


def matched_means(
    source: Sequence[tuple[Hashable, ArrayLike]], target: Sequence[tuple[Hashable, ArrayLike]]
) -> tuple[list[Hashable], Floats, Floats]:
    """Match two languages by what is said: the mean vector of each name that both have.

    Names are vowels, given (vowel, vector) of each spoken vowel, or sentences that both languages
    act; vectors may be (D,) or (L, D).

    Returns:
        The n common names, in order of first appearance in the source, and the means of both sides,
        (n, ...) each: arguments for `layer_similarity`.

    Raises:
        ValueError: less than two names are common.
    """
    sides: list[dict[Hashable, list[Floats]]] = [{}, {}]
    for groups, items in zip(sides, (source, target), strict=True):
        for name, vector in items:
            groups.setdefault(name, []).append(np.asarray(vector, np.float64))
    names = [name for name in sides[0] if name in sides[1]]
    if len(names) < 2:
        raise ValueError(f"both sides share {names}: a similarity needs two names or more")
    x, y = (np.stack([np.mean(groups[name], axis=0) for name in names]) for groups in sides)
    return names, x, y


def most_similar_group(similarity: ArrayLike, size: int) -> tuple[int, ...]:
    """The `size` adjacent layers that are most similar across languages: the anchors.

    The mean is over the group's block of the matrix, every source layer with every target layer of
    the group; of equal groups the first.

    Args:
        similarity: (L, L), row = source layer, column = target layer.
        size: layers in the group, 1 to L.
    """
    matrix = np.asarray(similarity, np.float64)
    layers = len(matrix)
    if matrix.shape != (layers, layers) or not 1 <= size <= layers:
        raise ValueError(f"a group of {size} layers needs an (L, L) matrix, L >= {size}, "
                         f"found {matrix.shape}")  # fmt: skip
    means = [matrix[i : i + size, i : i + size].mean() for i in range(layers - size + 1)]
    first = int(np.argmax(means))
    return tuple(range(first, first + size))


def _centred(x: ArrayLike) -> Floats:
    """Columns less their means; from the first item on, so that what does not vary is exactly 0."""
    values = np.asarray(x, np.float64)
    shifted = values - values[:1]
    return np.asarray(shifted - shifted.mean(axis=0))


def _normed(product: float, x: np.floating, y: np.floating) -> float:
    return float(np.clip(product / (x * y), 0, 1)) if x > 0 and y > 0 else 0.0
