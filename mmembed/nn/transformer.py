"""A transformer over packed or padded steps: attention within each item, its block, and pooling.

Packed attention is our own: padded libraries let an item see its neighbours' padding, and nested
tensors of torch were 16 times as slow on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import Packed, Padded, Steps, precise
from mmembed.nn.frontend import DepthwiseConv

KERNEL_HEAD = 8  # the kernel of CUDA takes multiples of this as the width of a head
LARGEST_HEAD = 256  # and no larger ones
VARIANCE_FLOOR = 1e-5  # keeps the gradient of the square root finite where nothing varies


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
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
        scale: what query times key is multiplied by; without it, the root of H / D.
        dropout: the share of attention weights that are set to 0; the kernel for half precision
            has none, so that with it the loop runs.

    Returns:
        (Nq, H, D / H).
    """
    half = query.is_cuda and query.dtype in (torch.float16, torch.bfloat16)
    if half and not dropout and query.shape[-1] <= LARGEST_HEAD:
        from torch.nn.attention.varlen import varlen_attn

        lengths = query_lengths, key_lengths
        return kernel_attention(varlen_attn, query, key, value, *lengths, scale=scale)
    # (1, H, T, D / H): a leading batch dimension selects the fused CPU kernel.
    query_heads, key_heads, value_heads = (x.transpose(0, 1)[None] for x in (query, key, value))
    items = [
        F.scaled_dot_product_attention(q, k, v, None, dropout, scale=scale)[0].transpose(0, 1)
        for q, k, v in zip(
            torch.split(query_heads, query_lengths.tolist(), 2),
            torch.split(key_heads, key_lengths.tolist(), 2),
            torch.split(value_heads, key_lengths.tolist(), 2),
            strict=True,
        )
    ]
    return torch.cat(items)


def kernel_attention(
    kernel: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: Tensor,
    key_lengths: Tensor,
    *,
    scale: float | None = None,
) -> Tensor:
    """`packed_attention` by `torch.nn.attention.varlen.varlen_attn`, for heads of any width."""
    size = query.shape[-1]
    if surplus := -size % KERNEL_HEAD:  # zeros change no product; the scale is that of the size
        query, key, value = (F.pad(x, (0, surplus)) for x in (query, key, value))
        scale = size**-0.5 if scale is None else scale

    def bounds(lengths: Tensor) -> Tensor:
        return F.pad(lengths.cumsum(0), (1, 0)).to(query.device, torch.int32)

    longest = (int(query_lengths.max()), int(key_lengths.max()))
    ends = (bounds(query_lengths), bounds(key_lengths))
    attended: Tensor = kernel(query, key, value, *ends, *longest, scale=scale)
    return attended[..., :size]


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
    first, second = x.chunk(2, -1)  # one gradient for both halves, where slices make one each
    turned = (
        torch.addcmul(first * cos, second, sin, value=-1),
        torch.addcmul(second * cos, first, sin),
    )
    return torch.cat(turned, -1)


class Attention(nn.Module):
    """Multi-head attention with rotary positions; self-attention when query and source agree."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
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


class Block(nn.Module):
    """Attention and feed-forward, each behind a LayerNorm, dropped out and added to its input.

    With a convolution between them, over `conv_size` steps, the block is near a Conformer's (Gulati
    et al. 2020, arXiv 2005.08100): speech is learned in far fewer passes.

    With a source the block is cross-modal: queries from x, keys and values from the source, which
    stays the same at every block (MulT, Tsai et al. 2019, arXiv 1906.00295). Without `residual` the
    result holds what was attended to and nothing of the query.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        dropout: float,
        *,
        cross: bool = False,
        residual: bool = True,
        conv_size: int = 0,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width) if cross else None
        self.attention = Attention(width, num_heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)
        self.conv = DepthwiseConv(width, conv_size) if conv_size else None

    def forward(
        self,
        x: Steps,
        positions: Tensor,
        source: Steps | None = None,
        source_positions: Tensor | None = None,
    ) -> Steps:
        """X (N, D) at `positions` (N,) -> (N, D)."""
        query = x.with_values(self.norm(x.values))
        if self.source_norm is None:
            keys, key_positions = query, positions
        else:
            assert source is not None and source_positions is not None
            keys = source.with_values(self.source_norm(source.values))
            key_positions = source_positions
        attended = self.attention(query, keys, positions, key_positions)
        values = self.dropout(attended)
        if self.residual:
            values = x.values + values
        if self.conv is not None:
            values = self.conv(x.with_values(values)).values
        return x.with_values(values + self.dropout(self.feed_forward(values)))


def mean_and_std(x: Steps) -> Tensor:
    """(N, D) -> (B, 2 D): mean and (population) standard deviation of each item over its steps.

    An item without steps gives zeros.
    """
    x = x.with_values(precise(x.values))
    count = x.lengths.clamp(min=1).to(x.values)[:, None]
    mean = x.total() / count
    if isinstance(x, Packed) and not x.values.is_cuda:
        # A loop over items: on a CPU five times as fast as gathering a mean for each step.
        squares = [(item - m).square().sum(0) for item, m in zip(x.split(), mean, strict=True)]
        variance = torch.stack(squares) / count
    else:
        variance = x.with_values((x.values - x.to_steps(mean)).square()).total() / count
    std = (variance + VARIANCE_FLOOR).sqrt() - VARIANCE_FLOOR**0.5
    return torch.cat((mean, std), 1)


def stack_layers(pooled: Sequence[Tensor]) -> Tensor:
    """Mean and standard deviation of layers, each (..., 2 D'), to (..., L, 2 D).

    D is the width of the widest. Narrower ones are filled with zeros: behind their mean, and behind
    their standard deviation. So what reads layers can take them as one array.
    """
    width = max(x.shape[-1] for x in pooled) // 2
    halves = (x.chunk(2, -1) for x in pooled)
    filled = [torch.cat([F.pad(x, (0, width - x.shape[-1])) for x in both], -1) for both in halves]
    return torch.stack(filled, -2)


def join_pooled(pooled: Sequence[Tensor]) -> Tensor:
    """Mean and standard deviation of layers, each (..., 2 D'), side by side: all means, then all
    standard deviations.
    """
    halves = [x.chunk(2, -1) for x in pooled]
    return torch.cat([mean for mean, _ in halves] + [std for _, std in halves], -1)


def pool_layers(layers: Mapping[str, Packed]) -> Tensor:
    """(B, L, 2 D) mean and standard deviation of every layer; see `stack_layers`."""
    return stack_layers([mean_and_std(layer) for layer in layers.values()])


class LayerWeights(nn.Module):
    """A learned weighted sum of layers, weights positive and summing to one (ELMo, SUPERB)."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_layers))

    def forward(self, layers: Tensor) -> Tensor:
        """(B, L, D) -> (B, D)."""
        return torch.einsum("bld,l->bd", layers, self.weights)

    @property
    def weights(self) -> Tensor:
        """(L,)."""
        return self.logits.softmax(0)
