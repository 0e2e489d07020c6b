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

    A loss that compares items with each other (a batch statistic) is no sum over items. A method
    that needs one declares the term in `batch_terms` and returns its value times the number of
    items that count it. What is minimised is then the mean of the statistics of all micro-batches
    and processes, weighted by their items: of one size whatever the cut, but not the same number.

    Attributes:
        terms: loss term -> the target (or context) whose labels count it.
        batch_terms: the terms that are statistics of a micro-batch; most methods have none.
        weights: loss term -> its weight in the loss.
    """

    terms: ClassVar[dict[str, str]]
    batch_terms: ClassVar[frozenset[str]] = frozenset()
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
