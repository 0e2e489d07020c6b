"""How far a clip lies from what a regressor was trained on: whether it is out of distribution.

The distance of a clip is the mean distance to the NEAREST nearest of some training clips, in the
standardised vectors that the regressor reads. Distances of training clips themselves, each to those
of other speakers, say what is usual for a new speaker; the quantile of a clip is the fraction of
them that is smaller. A clip farther than USUAL of them is out of distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mmembed.errors import CorruptError
from mmembed.io.atomic import atomic_file
from mmembed.nn.weights import check_file

FOLDER: Final = "familiarity"  # in the folder of a run; a name that older versions gave it
USUAL: Final = 0.99  # of the training clips; so about one in a hundred of the same kind is outside
REFERENCES: Final = 256  # training clips that are kept
NEAREST: Final = 5
OUTSIDE: Final = (
    f"farther from the training clips than {USUAL:.0%} of these from other speakers; outside what "
    "the model knows, so that its answer means little"
)
BATCH_SIZE: Final = 1024  # clips whose distances are computed together


@dataclass(frozen=True)
class DistanceScore:
    """How the distance of a clip compares with those of the training clips.

    Attributes:
        quantile: fraction of the training clips that lie nearer to those of other speakers than it
            lies to all, in [0, 1].
        outside: whether it lies farther than what is usual, out of distribution.
    """

    quantile: float
    outside: bool


@dataclass(frozen=True)
class TrainingDistances:
    """What is kept of the training vectors of one stream subset.

    Attributes:
        mean: (D,) of them.
        scale: (D,) their standard deviation.
        references: (R, D) standardised, float16.
        distances: (N,) ascending, of training clips to references of other speakers.
    """

    mean: Tensor
    scale: Tensor
    references: Tensor
    distances: Tensor

    @classmethod
    def of(
        cls, vectors: Tensor, mean: Tensor, scale: Tensor, groups: Sequence[str]
    ) -> TrainingDistances | None:
        """Compute the distances of the training clips.

        Args:
            vectors: (N, L, W) of them.
            mean: (L, W).
            scale: (L, W).
            groups: N names of speakers, or of other groups.

        Returns:
            None where all clips are of one group.
        """
        standard = ((vectors - mean) / scale).flatten(1)
        kept = np.unique(np.linspace(0, len(vectors) - 1, REFERENCES).round().astype(int))
        references = standard[kept].half()
        numbers = np.unique(np.array(groups), return_inverse=True)[1]
        others = torch.from_numpy(numbers[:, None] != numbers[kept][None])
        distances = _distances(standard, references, others)
        distances = distances[distances.isfinite()].sort().values
        if not len(distances):
            return None
        return cls(mean.flatten(), scale.flatten(), references, distances)

    @torch.no_grad()
    def score(self, layers: Tensor) -> list[DistanceScore]:
        """Of clips (B, L, W)."""
        standard = (layers.flatten(1) - self.mean) / self.scale
        distances = _distances(standard, self.references)
        quantiles = torch.searchsorted(self.distances, distances) / len(self.distances)
        limit = float(self.distances.quantile(USUAL))
        return [
            DistanceScore(quantile, not distance <= limit)
            for quantile, distance in zip(quantiles.tolist(), distances.tolist(), strict=True)
        ]

    def write(self, path: Path) -> None:
        """Write a safetensors file."""
        with atomic_file(path) as file:
            file.write(save({name: value.contiguous() for name, value in vars(self).items()}))

    @classmethod
    def read(cls, path: Path, width: int) -> Self:
        """Read what `write` wrote, of vectors of `width` numbers.

        Raises:
            CorruptError: it is damaged, or of other vectors.
        """
        check_file(path)
        try:
            kept = cls(**load_file(path))
        except (OSError, TypeError, SafetensorError) as error:
            what = str(error).partition("\n")[0]
            raise CorruptError(f"{path}: no distances of training clips: {what}") from None
        shapes = [tuple(value.shape) for value in vars(kept).values()]
        rows, count = len(kept.references), kept.distances.numel()
        if shapes != [(width,), (width,), (rows, width), (count,)] or not rows * count:
            raise CorruptError(f"{path}: distances of other vectors: {shapes}")
        if not all(v.is_floating_point() and v.isfinite().all() for v in vars(kept).values()):
            raise CorruptError(f"{path}: holds values that are not finite numbers")
        return kept


def _distances(standard: Tensor, references: Tensor, allowed: Tensor | None = None) -> Tensor:
    """(B,) mean distance to the nearest references; infinite where none is allowed.

    Args:
        standard: (B, D).
        references: (R, D).
        allowed: (B, R) whether a reference may count; None = all may.
    """
    means = []
    for first in range(0, len(standard), BATCH_SIZE):
        each = torch.cdist(standard[first : first + BATCH_SIZE], references.float())
        if allowed is not None:
            each = each.masked_fill(~allowed[first : first + BATCH_SIZE], torch.inf)
        nearest = each.topk(min(NEAREST, len(references)), largest=False).values
        real = nearest.isfinite()
        mean = nearest.masked_fill(~real, 0).sum(1) / real.sum(1)
        means.append(mean.masked_fill(~real.any(1), torch.inf))
    return torch.cat(means)
