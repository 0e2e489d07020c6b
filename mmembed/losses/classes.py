"""Losses of one class an item: one value for each, 0 where it is not labelled."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.batch import UNLABELLED, precise


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
