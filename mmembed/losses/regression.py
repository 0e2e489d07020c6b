"""The loss of numbers: one value an item, averaged over those that are known."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """(B,) squared error, averaged over what is known of (B, E); 0 where target is NaN."""
    error = (predicted - target.nan_to_num()).square()
    error = torch.where(target.isnan(), torch.zeros_like(error), error)
    return error if error.ndim == 1 else error.sum(1) / (~target.isnan()).sum(1).clamp(min=1)
