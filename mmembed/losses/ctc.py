"""Connectionist temporal classification for each item, and how many frames it needs."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.batch import Packed, Padded, precise


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
