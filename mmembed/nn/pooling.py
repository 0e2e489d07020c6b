"""From steps to one vector an item."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmembed.batch import Packed, Steps, precise

VARIANCE_FLOOR = 1e-5  # keeps the gradient of the square root finite where nothing varies


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
