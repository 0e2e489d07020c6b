"""Steps of a stream on the frame grid of another."""

from __future__ import annotations

import torch
from torch import Tensor

from mmembed.batch import Packed, Padded, Steps


def to_frames(x: Steps, grid: Tensor, ratio: int) -> Tensor:
    """(N, D) steps to (sum of `grid`, D) frames of `ratio` steps each: their mean.

    An item with fewer steps than its frames have keeps its last one; one with more loses the rest.

    Args:
        x: items of at least one step.
        grid: (B,) int64 frames of each.
        ratio: steps in a frame.
    """
    if isinstance(x, Padded):
        longest = x.values.shape[1]
        last = (x.lengths - 1).clamp(0, longest - 1).to(x.values.device)[:, None]
        starts = ratio * torch.arange((longest + ratio - 1) // ratio, device=x.values.device)
        parts = [_taken(x.values, torch.minimum(starts + n, last)) for n in range(ratio)]
        return torch.stack(parts).mean(0)
    steps = Packed(torch.empty(int(grid.sum()) * ratio), grid * ratio).positions()
    index = _index(x, grid * ratio, steps.cpu())
    values: Tensor = x.values[index.to(x.values.device)]
    return values.reshape(-1, ratio, *values.shape[1:]).mean(1)


def spread_tokens(x: Packed, grid: Tensor) -> Tensor:
    """(N, D) tokens to (sum of `grid`, D) frames: each token has an equal share of its item.

    Args:
        x: items of at least one token.
        grid: (B,) int64 frames of each.
    """
    frames = Packed(torch.empty(int(grid.sum())), grid).positions().cpu()
    share = (x.lengths / grid).repeat_interleave(grid)
    index = _index(x, grid, ((frames + 0.5) * share).long())
    return x.values[index.to(x.values.device)]


def _taken(values: Tensor, steps: Tensor) -> Tensor:
    """(B, T, D) and (B, T') int64 to (B, T', D)."""
    return values.gather(1, steps[..., None].expand(-1, -1, values.shape[2]))


def _index(x: Packed, lengths: Tensor, steps: Tensor) -> Tensor:
    """Rows of x for steps of its items, `lengths` of them an item."""
    last = (x.lengths - 1).repeat_interleave(lengths)
    return x.offsets[:-1].repeat_interleave(lengths) + torch.minimum(steps, last)
