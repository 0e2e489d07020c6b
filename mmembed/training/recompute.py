"""Less memory for more work: activations that are computed again in the backward pass."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint

from mmembed.backbones.stream import StreamEncoder
from mmembed.nn.transformer import Block


def recompute_blocks(module: nn.Module) -> int:
    """Keep of each transformer block, ours and those of pretrained encoders, only what goes in.

    The backward pass computes the rest again, with the same dropout (Chen et al. 2016, arXiv
    1604.06174), so that gradients are the same. Blocks of which nothing is trained are left alone.

    Returns:
        How many blocks there were.
    """
    blocks = [part for part in module.modules() if isinstance(part, Block)]
    for part in module.modules():
        if isinstance(part, StreamEncoder):
            blocks += part.blocks  # type: ignore[arg-type]
    trained = [part for part in blocks if any(p.requires_grad for p in part.parameters())]
    for part in trained:
        part.forward = partial(checkpoint, part.forward, use_reentrant=False)  # type: ignore[method-assign]
    return len(trained)
