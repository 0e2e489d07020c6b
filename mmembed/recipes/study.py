"""What the fine-tuning program asks of a study: data as batches, methods, scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.batch import Batch
from mmembed.contract import Method
from mmembed.training.optim import OptimConfig

Models = Mapping[str, Sequence[Method]]
"""Variant -> one trained method for each seed."""


@dataclass(frozen=True)
class FinetuneLoop:
    """How long and how.

    Attributes:
        epochs: passes over the training items; the best by dev loss is kept.
        batch: items a step.
        seeds: one method each for every variant; tables give mean and deviation.
    """

    epochs: int = 20
    batch: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class FinetuneRun:
    """What all fine-tuning runs have; a recipe's own adds its data and its method."""

    name: str
    optim: OptimConfig
    loop: FinetuneLoop


class Study(ABC):
    """One table: variants of a method, trained and scored on the same data.

    Attributes:
        run: with the sizes that only the data could tell; it is saved and decides everything.
        variants: what is trained side by side, such as stream subsets or ablations.
        controls: name -> the same study on other data, such as vectors of the untrained encoder;
            its variants' scores stand beside ours in the results.
    """

    run: FinetuneRun
    variants: tuple[str, ...]
    controls: Mapping[str, Study]

    @abstractmethod
    def size(self, variant: str, split: str) -> int:
        """Items of a split."""

    @abstractmethod
    def batch(self, variant: str, split: str, rows: Sequence[int] | None = None) -> Batch:
        """Some items of a split, or all."""

    @abstractmethod
    def method(self, variant: str) -> Method:
        """A new method, its weights drawn from torch's default generator."""

    @abstractmethod
    def results(self, models: Models) -> dict[str, Any]:
        """Scores on test, which is read here and nowhere else; plain JSON values."""

    @abstractmethod
    def save(self, out: Path, models: Models) -> None:
        """Write the methods, and whatever a report wants beside the scores."""

    @abstractmethod
    def table(self, results: Mapping[str, Any]) -> Iterator[str]:
        """The lines to print."""
