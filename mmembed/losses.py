"""Losses as functions: each returns one value an item, summed and divided elsewhere, once.

`coral` is the exception: it compares two sets of items and returns one value for both.

Losses of several labels at a time are after Chochlakis et al. 2023 (arXiv 2210.15842). Of one item
with logits z, let P be the labels that are present (at least 0.5) and N the others. `affinity`
(E, E) in [0, 1] says how far two labels go together: (rho + 1) / 2 of their correlation rho; None
weighs all pairs with 1. An item with a NaN among its labels has the value 0.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.batch import UNLABELLED, Packed, Padded, precise

RELEASED_EPSILON = 1e-5  # what the released code of Demux adds to weights and correlations


def ctc_steps_needed(tokens: list[int]) -> int:
    """The least number of frames a CTC alignment takes: one a token, one more a repetition."""
    return len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))


def ctc_loss(log_probs: Packed, transcript: Padded, blank: int) -> Tensor:
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


def divergence(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(...) KL(softmax(teacher / tau) || softmax(logits / tau)) of logits (..., C)."""
    student, target = ((precise(x) / temperature).log_softmax(-1) for x in (logits, teacher))
    return F.kl_div(student, target, reduction="none", log_target=True).sum(-1)


def masked_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """(B,) squared error, averaged over what is known of (B, E); 0 where target is NaN."""
    error = (predicted - target.nan_to_num()).square()
    error = torch.where(target.isnan(), torch.zeros_like(error), error)
    return error if error.ndim == 1 else error.sum(1) / (~target.isnan()).sum(1).clamp(min=1)


def binary_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """(B,) cross entropy of logits (B, E) and targets (B, E) in [0, 1], averaged over labels."""
    z = precise(logits)
    losses = F.binary_cross_entropy_with_logits(z, target.to(z).nan_to_num(), reduction="none")
    return _known(losses.mean(1), target)


def inter(logits: Tensor, target: Tensor, affinity: Tensor | None = None) -> Tensor:
    """(B,) mean over P x N of (1 - affinity) * exp(sigmoid(z_n) - sigmoid(z_p)).

    0 where P or N is empty. Logits and targets are (B, E).
    """
    present = target >= 0.5
    chance = precise(logits).sigmoid()
    exponent = chance[:, None, :] - chance[:, :, None]
    weight = None if affinity is None else 1 - affinity
    return _known(_pair_mean(exponent, present[:, :, None] & ~present[:, None, :], weight), target)


def intra(logits: Tensor, target: Tensor, affinity: Tensor | None = None) -> Tensor:
    """(B,) mean over pairs i < j in N of affinity * exp(z_i + z_j), plus the same over pairs in P
    with the signs of z turned; halved where neither P nor N is empty.

    Logits and targets are (B, E). A set of one label has no pair and adds 0. For the form of the
    released code see `released_intra`.
    """
    return _within(logits, target, affinity, released=False)


def released_intra(logits: Tensor, target: Tensor, affinity: Tensor | None = None) -> Tensor:
    """(B,) `intra` as the authors' code computes it (github.com/gchochla/Demux-MEmo).

    It averages over all k * k ordered pairs of a set of k, and exponentiates after it zeroed what
    does not lie above the diagonal: each pair i >= j adds its weight times exp(0). So its gradient
    is (k - 1) / 2k of that of `intra`, less for small sets than for large ones, and a set of one
    label costs a constant. It adds 1e-5 to all weights.
    """
    raised = None if affinity is None else affinity + RELEASED_EPSILON
    return _within(logits, target, raised, released=True)


def _within(logits: Tensor, target: Tensor, affinity: Tensor | None, released: bool) -> Tensor:
    present = target >= 0.5
    z = precise(logits)
    above = torch.ones(z.shape[1], z.shape[1], dtype=torch.bool, device=z.device).triu(1)
    total = torch.zeros_like(z[:, 0])
    for members, signed in ((~present, z), (present, -z)):
        pairs, exponent = (
            members[:, :, None] & members[:, None, :],
            signed[:, :, None] + signed[:, None, :],
        )
        if released:
            exponent = exponent.masked_fill(~above, 0)
        else:
            pairs = pairs & above
        total = total + _pair_mean(exponent, pairs, affinity)
    return _known(torch.where(_both(present), total / 2, total), target)


def complete(logits: Tensor, target: Tensor, affinity: Tensor | None = None) -> Tensor:
    """(B,) mean of `inter` and `intra`; `intra` alone where P or N is empty."""
    return _completed(logits, target, affinity, intra(logits, target, affinity))


def released_complete(logits: Tensor, target: Tensor, affinity: Tensor | None = None) -> Tensor:
    """(B,) `complete` with `released_intra`."""
    return _completed(logits, target, affinity, released_intra(logits, target, affinity))


def _completed(logits: Tensor, target: Tensor, affinity: Tensor | None, within: Tensor) -> Tensor:
    mean = (inter(logits, target, affinity) + within) / 2
    return torch.where(_both(target >= 0.5), mean, within)


def embedding_correlation(embeddings: Tensor, correlation: Tensor) -> Tensor:
    """(B,) mean over pairs i < j of (cos(e_i, e_j) - rho_ij)^2: the global loss.

    Args:
        embeddings: (B, E, D).
        correlation: rho (E, E) in [-1, 1].
    """
    size = embeddings.shape[1]
    return _embedding_error(embeddings, correlation) / max(1, size * (size - 1) // 2)


def released_embedding_correlation(embeddings: Tensor, correlation: Tensor) -> Tensor:
    """(B,) `embedding_correlation` as the authors' code computes it: divided by E * E instead of by
    the number of pairs, (E - 1) / 2E of it (1 / 2.2 for E = 11), and with 1e-5 added to rho.
    """
    return _embedding_error(embeddings, correlation + RELEASED_EPSILON) / embeddings.shape[1] ** 2


def _embedding_error(embeddings: Tensor, correlation: Tensor) -> Tensor:
    """(B,) sum over pairs i < j of (cos(e_i, e_j) - rho_ij)^2."""
    directions = F.normalize(precise(embeddings), dim=-1)
    error = (directions @ directions.transpose(1, 2) - correlation).square()
    return error.triu(1).sum((1, 2))


def label_correlation(labels: Tensor) -> Tensor:
    """(E, E) Pearson correlation of labels (N, E); rows with a NaN are left out.

    A label that never varies has correlation 0 with every other: nothing is known of it.
    """
    known = labels.double()[~labels.isnan().any(1)]
    centred = known - known.mean(0)
    norm = centred.square().sum(0).sqrt()
    cosine = centred.T @ centred / (norm[:, None] * norm).clamp(min=1e-12)
    return cosine.clamp(-1, 1).fill_diagonal_(1).float()


def _pair_mean(exponent: Tensor, pairs: Tensor, weight: Tensor | None) -> Tensor:
    """(B,) mean of weight * exp(exponent) over the chosen pairs (B, E, E); 0 without any."""
    # Other pairs are dropped before exp: there it may overflow, and 0 * inf is no number.
    value = exponent.masked_fill(~pairs, -torch.inf).exp()
    value = value if weight is None else value * weight
    return value.sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)


def _both(present: Tensor) -> Tensor:
    return present.any(1) & ~present.all(1)


def _known(losses: Tensor, target: Tensor) -> Tensor:
    return torch.where(target.isnan().any(1), torch.zeros_like(losses), losses)


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
