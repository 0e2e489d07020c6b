"""Attention within each item, of packed or padded steps, for the modules of transformers.

Their blocks take (1, N, D): all items one after another as if they were one sequence. All that
mixes steps is attention, and it is replaced by ours, which keeps items apart. Padded steps
(B, T, D) come with a mask instead of lengths.
"""

from __future__ import annotations

from typing import Any, Final

import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.nn.transformer import packed_attention

ATTENTION: Final = "mmembed_packed"  # its name among the attentions of transformers


def attend_within_items(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    lengths: Tensor | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Query, key and value (1, H, N, D / H) and lengths (B,) to (1, N, H, D / H); or query, key and
    value (B, H, T, D / H) and a mask (B, 1, 1, T), True = real, to (B, T, H, D / H).

    The signature is the one of transformers, which hands on what its blocks are called with.
    """
    if lengths is None:
        padded = F.scaled_dot_product_attention(
            query, key, value, attention_mask, dropout, scale=scaling
        )
        return padded.transpose(1, 2), None
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    attended = packed_attention(q, k, v, lengths, lengths, scale=scaling, dropout=dropout)
    return attended[None], None


def attend_packed(model: Any) -> None:
    """Let the blocks of a model of transformers be called with `lengths=`, or with a mask."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend_within_items)
    model.set_attn_implementation(ATTENTION)
