"""Attention over packed or padded sequences: each item attends within itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import Padded, Steps


def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, query_lengths: Tensor, key_lengths: Tensor
) -> Tensor:
    """Softmax attention of each item's queries over the same item's keys.

    On CUDA in half precision this is one variable-length kernel. Elsewhere it is a loop over items:
    on a CPU that is 2-3 times as fast as attention over padded, masked batches of mixed lengths.

    Args:
        query: (Nq, H, D / H).
        key: (Nk, H, D / H).
        value: (Nk, H, D / H).
        query_lengths: (B,) int64 on the CPU, sum Nq.
        key_lengths: (B,) int64 on the CPU, sum Nk; positive wherever query_lengths is.

    Returns:
        (Nq, H, D / H).
    """
    if query.is_cuda and query.dtype in (torch.float16, torch.bfloat16):
        from torch.nn.attention.varlen import varlen_attn

        def bounds(lengths: Tensor) -> Tensor:
            return F.pad(lengths.cumsum(0), (1, 0)).to(query.device, torch.int32)

        attended = varlen_attn(
            query,
            key,
            value,
            bounds(query_lengths),
            bounds(key_lengths),
            int(query_lengths.max()),
            int(key_lengths.max()),
        )
        assert isinstance(attended, Tensor)
        return attended
    # (1, H, T, D / H): a leading batch dimension selects the fused CPU kernel.
    query_heads, key_heads, value_heads = (x.transpose(0, 1)[None] for x in (query, key, value))
    items = [
        F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)
        for q, k, v in zip(
            torch.split(query_heads, query_lengths.tolist(), 2),
            torch.split(key_heads, key_lengths.tolist(), 2),
            torch.split(value_heads, key_lengths.tolist(), 2),
            strict=True,
        )
    ]
    return torch.cat(items)


def padded_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """The same over padded sequences.

    Args:
        query: (B, Tq, H, D / H).
        key: (B, Tk, H, D / H), finite in the padding.
        value: (B, Tk, H, D / H), finite in the padding.
        mask: (B, Tk) bool, which keys are real.

    Returns:
        (B, Tq, H, D / H).
    """
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(q, k, v, mask[:, None, None]).transpose(1, 2)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, arXiv 2104.09864).

    Args:
        x: (..., H, D / H), D / H even.
        positions: (...) float, in steps; differences are what attention sees.
    """
    half = x.shape[-1] // 2
    frequencies = 10_000.0 ** -(torch.arange(half, device=x.device) / half)
    angles = (positions.to(x.device).float()[..., None] * frequencies)[..., None, :]
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., :half], x[..., half:]
    turned = (
        torch.addcmul(first * cos, second, sin, value=-1),
        torch.addcmul(second * cos, first, sin),
    )
    return torch.cat(turned, -1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions; self-attention when query and source agree."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        if width % (2 * num_heads):
            raise ValueError(f"width {width} must be a multiple of 2 * num_heads = {2 * num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Steps, source: Steps, x_positions: Tensor, source_positions: Tensor
    ) -> Tensor:
        """(Nq, D) from queries x (Nq, D) over source (Nk, D); positions (Nq,), (Nk,) in steps."""
        query = rotate(self.query(x.values).unflatten(-1, (self.num_heads, -1)), x_positions)
        key, value = self.key_value(source.values).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        key = rotate(key, source_positions)
        if isinstance(source, Padded):
            attended = padded_attention(query, key, value, source.mask)
        else:
            attended = packed_attention(query, key, value, x.lengths, source.lengths)
        projected: Tensor = self.out(attended.flatten(-2))
        return projected
