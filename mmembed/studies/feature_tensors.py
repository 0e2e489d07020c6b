"""Features of examples as tensors, looked at before anything is learned from them."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor

from mmembed.data.example import Example
from mmembed.errors import DataError


def features_of(example: Example, where: str) -> dict[str, Tensor]:
    """Stream -> (T, D) float32.

    Args:
        example: of features.
        where: the folders that are read, for the message.

    Raises:
        DataError: a value is infinite or no number: it would spoil the mean of all items.
    """
    features = {name: torch.from_numpy(steps) for name, steps in example.features.items()}
    for name, steps in features.items():
        if not steps.isfinite().all():
            raise DataError(
                f"{where}: {example.key}",
                "not_finite",
                f"its {name} holds values that are not finite; `mmembed verify` lists all such "
                "items: make their features again, or leave them out",
            )
    return features


class Standardise(NamedTuple):
    """What gives training items mean 0 and standard deviation 1 in every column.

    Attributes:
        mean: (...) of the training items.
        scale: (...) their standard deviation; of columns that hardly vary `floor`.
    """

    mean: Tensor
    scale: Tensor

    @classmethod
    def by(cls, train: Tensor, floor: float = 1e-5) -> Self:
        """Measure training items (N, ...)."""
        return cls(train.mean(0), train.std(0, unbiased=False).clamp(min=floor))

    @classmethod
    def nothing(cls, width: int) -> Self:
        """What leaves items as they are."""
        return cls(torch.zeros(width), torch.ones(width))

    def __call__(self, items: Tensor) -> Tensor:
        """(N', ...) standardised."""
        return (items - self.mean) / self.scale
