"""Attention within each item of packed steps, for the modules of transformers.

Their blocks take (1, N, D): all items one after another as if they were one sequence. All that
mixes steps is attention, and it is replaced by ours, which keeps items apart.
"""

from __future__ import annotations

from typing import Any, Final

from torch import Tensor, nn

from mmembed.nn.transformer import packed_attention

ATTENTION: Final = "mmembed_packed"  # its name among the attentions of transformers


def attend_within_items(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None = None,
    *,
    lengths: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Query, key and value (1, H, N, D / H) and lengths (B,) to (1, N, H, D / H).

    The signature is the one of transformers, which hands on what its blocks are called with.
    """
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    attended = packed_attention(q, k, v, lengths, lengths, scale=scaling, dropout=dropout)
    return attended[None], None


def attend_packed(model: Any) -> None:
    """Let the blocks of a model of transformers be called with `lengths=` and packed steps."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend_within_items)
    model.set_attn_implementation(ATTENTION)
