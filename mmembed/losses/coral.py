"""Correlation alignment: how far the covariances of two sets of items differ."""

from __future__ import annotations

from torch import Tensor

from mmembed.batch import precise


def covariance(x: Tensor) -> Tensor:
    """(D, D) covariance of the columns of (n, D), n at least 2, divided by n - 1."""
    x = precise(x)
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def coral(source: Tensor, target: Tensor) -> Tensor:
    """Correlation alignment (Sun and Saenko 2016, arXiv 1607.01719): ||C_s - C_t||_F^2 / (4 D^2).

    Blind to the means of both sides. Its value has a floor from sampling alone: two sets of n items
    of one distribution of unit variances give about 1 / (2 n).

    Args:
        source: (n_s, D).
        target: (n_t, D).

    Returns:
        Scalar, at least 0; 0 where a side has less than two items, and thus no covariance.
    """
    if min(len(source), len(target)) < 2:
        return precise(source.new_zeros(()))
    gap = covariance(source) - covariance(target)
    return gap.square().sum() / (4 * source.shape[1] ** 2)
