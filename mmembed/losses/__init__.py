"""Losses as functions: each returns one value an item, summed and divided elsewhere, once.

`coral` is the exception: it compares two sets of items and returns one value for both.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.batch import UNLABELLED, Packed, Padded, precise


def ctc_steps_needed(tokens: list[int]) -> int:
    """The least number of frames a CTC alignment takes: one a token, one more a repetition."""
    return len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))


def ctc(log_probs: Packed, transcript: Padded, blank: int) -> Tensor:
    """Connectionist temporal classification (Graves et al. 2006) for each item.

    Args:
        log_probs: (N, V) log-probabilities.
        transcript: (B, U) token ids, length 0 = unlabelled.
        blank: the id of the blank.

    Returns:
        (B,) negative log-likelihood divided by the number of tokens; 0 where unlabelled.
    """
    frames = log_probs.pad()
    losses = F.ctc_loss(
        precise(frames.values).transpose(0, 1),
        transcript.values,
        frames.lengths,
        transcript.lengths,
        blank=blank,
        reduction="none",
    )
    labelled = (transcript.lengths > 0).to(losses.device)
    lengths = transcript.lengths.clamp(min=1).to(losses.device)
    return torch.where(labelled, losses / lengths, torch.zeros_like(losses))


def class_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) cross entropy of logits (B, C) and classes (B,); 0 where UNLABELLED."""
    return F.cross_entropy(precise(logits), target, ignore_index=UNLABELLED, reduction="none")


def margin_logits(cosines: Tensor, target: Tensor, margin: float, scale: float) -> Tensor:
    """Additive-margin softmax (Wang et al. 2018, arXiv 1801.05599): s * (cos - m at the target).

    Args:
        cosines: (B, C) in [-1, 1].
        target: (B,) classes; UNLABELLED rows get no margin.
        margin: m, at least 0.
        scale: s, above 0.
    """
    classes = torch.arange(cosines.shape[1], device=cosines.device)
    return scale * (cosines - margin * (target[:, None] == classes))


def masked_absolute_error(predicted: Tensor, target: Tensor) -> Tensor:
    """(B,) absolute error, averaged over what is known of (B, E); 0 where target is NaN."""
    return _masked_mean((predicted - target.nan_to_num()).abs(), target)


def masked_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """(B,) squared error, averaged over what is known of (B, E); 0 where target is NaN."""
    return _masked_mean((predicted - target.nan_to_num()).square(), target)


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


def _masked_mean(error: Tensor, target: Tensor) -> Tensor:
    error = torch.where(target.isnan(), torch.zeros_like(error), error)
    return error if error.ndim == 1 else error.sum(1) / (~target.isnan()).sum(1).clamp(min=1)
