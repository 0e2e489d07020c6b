"""LoRA: a trained product of two small matrices beside a frozen linear layer.

Hu et al. 2021, arXiv 2106.09685. Queries and values of the attention have it, as there. An encoder
is saved with the products added to its weights, so that what reads it need not know of them; so the
few lines are our own, and no library of adapters is needed.
"""

from __future__ import annotations

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.errors import UsageError

ADAPTED: Final = {"q_proj", "v_proj", "query", "value", "q", "v"}
"""What transformers calls queries and values, by architecture."""


class LoraLinear(nn.Module):
    """y = W x + b + B A x, of which A and B are trained; B starts at 0.

    The usual factor alpha / r is 1: the learning rate does the same.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.empty(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        base: Tensor = self.base(x)
        return base + F.linear(F.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The same as one linear layer."""
        self.base.weight += self.up @ self.down
        return self.base


def add_lora(module: nn.Module, rank: int) -> None:
    """Put `LoraLinear` around all queries and values within.

    Raises:
        UsageError: there are none.
    """
    found = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if name in ADAPTED and isinstance(child, nn.Linear)
    ]
    if not found:
        raise UsageError("LoRA: no queries and values under the names that are known")
    for parent, name, child in found:
        setattr(parent, name, LoraLinear(child, rank))


def merge_lora(module: nn.Module) -> None:
    """Undo `add_lora`; the sums become part of the weights."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLinear):
                setattr(parent, name, child.merged())
