"""What a method is: forward gives sums of losses, predict gives predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from mmembed.batch import Batch

Gather = Callable[[object], list[object]]
"""Every process's value, in the order of ranks, on each of them."""


class Method(nn.Module, ABC):
    """One paper. The training programs know nothing else of it.

    `forward` returns, for each term, the SUM of its loss over the items of the batch that carry the
    term's target. The caller adds sums over micro-batches and processes, counts labels with
    `Batch.count`, and divides once: so neither world size, nor accumulation, nor missing labels
    change a gradient.

    Attributes:
        terms: loss term -> the target whose labels count it.
        weights: loss term -> its weight in the loss.
    """

    terms: ClassVar[dict[str, str]]
    weights: dict[str, float]

    @abstractmethod
    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """{term: scalar sum over labelled items}."""

    @abstractmethod
    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """{target: prediction}."""

    def start_epoch(self, number: int) -> None:
        """Called before the first step of an epoch, and again when training resumes within it.

        Args:
            number: 1 for the first epoch.
        """

    def after_step(self, applied: bool, gather: Gather) -> None:
        """Called once a step on every process, after the optimiser: the place to change buffers.

        A forward pass changes none, so that all micro-batches of a step see the same.

        Args:
            applied: False when something was not finite and the weights were left alone.
            gather: brings together what the processes of this training know; all have to call it.
        """
