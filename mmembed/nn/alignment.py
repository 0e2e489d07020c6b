"""Steps of a stream on the frame grid of another."""

from __future__ import annotations

import torch
from torch import Tensor

from mmembed.batch import Packed, Padded


def to_frames(x: Packed, grid: Tensor, ratio: int) -> Tensor:
    """(N, D) steps to (sum of `grid`, D) frames of `ratio` steps each: their mean.

    An item with fewer steps than its frames have keeps its last one; one with more loses the rest.

    Args:
        x: items of at least one step.
        grid: (B,) int64 frames of each.
        ratio: steps in a frame.
    """
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


def to_padded_frames(x: Padded, count: int, ratio: int) -> Tensor:
    """The same of padded steps: (B, T, D) to (B, count, D), anything behind an item's frames."""
    starts = ratio * torch.arange(count, device=x.values.device)
    return torch.stack([_taken(x, (starts + n)[None]) for n in range(ratio)]).mean(0)


def spread_padded_tokens(x: Padded, grid: Tensor, count: int) -> Tensor:
    """The same of padded tokens: (B, T, D) to (B, count, D), anything behind an item's frames."""
    frames = torch.arange(count, device=x.values.device)
    return _taken(x, ((frames + 0.5) * (x.lengths / grid)[:, None]).long())


def _taken(x: Padded, steps: Tensor) -> Tensor:
    """(B, T, D) and steps (B or 1, T') of each item to (B, T', D); behind its end, its last one."""
    last = (x.lengths - 1).clamp(0, x.values.shape[1] - 1).to(steps.device)[:, None]
    rows = torch.minimum(steps, last)[..., None]
    return x.values.gather(1, rows.expand(-1, -1, x.values.shape[2]))


def _index(x: Packed, lengths: Tensor, steps: Tensor) -> Tensor:
    """Rows of x for steps of its items, `lengths` of them an item."""
    last = (x.lengths - 1).repeat_interleave(lengths)
    return x.offsets[:-1].repeat_interleave(lengths) + torch.minimum(steps, last)
