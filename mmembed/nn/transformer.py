"""Pre-norm transformer blocks over packed sequences."""

from __future__ import annotations

from torch import Tensor, nn

from mmembed.batch import Packed
from mmembed.nn.attention import Attention


class Block(nn.Module):
    """Attention and feed-forward, each behind a LayerNorm, dropped out and added to its input.

    With a source the block is cross-modal: queries from x, keys and values from the source, which
    stays the same at every block (MulT, Tsai et al. 2019, arXiv 1906.00295).
    """

    def __init__(self, width: int, num_heads: int, dropout: float, *, cross: bool = False) -> None:
        super().__init__()
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

    def forward(
        self,
        x: Packed,
        positions: Tensor,
        source: Packed | None = None,
        source_positions: Tensor | None = None,
    ) -> Packed:
        """X (N, D) at `positions` (N,) -> (N, D)."""
        query = x.with_values(self.norm(x.values))
        if self.source_norm is None:
            keys, key_positions = query, positions
        else:
            assert source is not None and source_positions is not None
            keys = source.with_values(self.source_norm(source.values))
            key_positions = source_positions
        attended = self.attention(query, keys, positions, key_positions)
        values = x.values + self.dropout(attended)
        return x.with_values(values + self.dropout(self.feed_forward(values)))
