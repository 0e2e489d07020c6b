"""Pre-norm transformer blocks over packed or padded sequences."""

from __future__ import annotations

from torch import Tensor, nn

from mmembed.batch import Steps
from mmembed.nn.attention import Attention
from mmembed.nn.frontend import DepthwiseConv


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
