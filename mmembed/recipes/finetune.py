"""Fine-tuning runs as values, and what they read: embedding shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mmembed.batch import Batch, Padded, subset_name
from mmembed.data.example import EMOTIONS
from mmembed.data.shards import ShardSet
from mmembed.errors import CorruptError, UsageError
from mmembed.methods.emotion import EmotionConfig
from mmembed.training.optim import OptimConfig


@dataclass(frozen=True)
class EmotionLoop:
    """How long and how.

    Attributes:
        epochs: passes over the training vectors; the best by dev loss is kept.
        batch: vectors a step.
        seeds: one regressor each for every stream subset; tables give mean and deviation.
    """

    epochs: int = 20
    batch: int = 64
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class FinetuneRun:
    """One fine-tuning run; everything that decides its result.

    Attributes:
        embeddings: folder with one folder of embedding shards for each stream subset, or with
            shards itself.
        untrained: the same of the untrained encoder, for comparison; optional.
    """

    name: str
    embeddings: str = ""
    untrained: str | None = None
    method: EmotionConfig = field(default_factory=EmotionConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-2, warmup=0.05, weight_decay=0.05)
    )
    loop: EmotionLoop = field(default_factory=EmotionLoop)


@dataclass(frozen=True)
class Vectors:
    """Embeddings of one split and stream subset.

    Attributes:
        keys: N of them.
        speakers: N.
        values: (N, L, W) float32.
        sentiment: (N,) in [-3, 3], NaN = unlabelled.
        emotions: (N, E) in [0, 3], NaN = unlabelled.
    """

    keys: tuple[str, ...]
    speakers: tuple[str, ...]
    values: Tensor
    sentiment: Tensor
    emotions: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def batch(self, rows: Sequence[int] | None = None) -> Batch:
        """Some rows, or all, as a batch."""
        index = torch.arange(len(self)) if rows is None else torch.tensor(rows)
        values = self.values[index]
        lengths = torch.full((len(values),), values.shape[1], dtype=torch.int64)
        return Batch(
            tuple(self.keys[i] for i in index.tolist()),
            {"embedding": Padded(values, lengths)},
            {"sentiment": self.sentiment[index], "emotions": self.emotions[index]},
        )


def read_vectors(folder: Path, splits: Sequence[str]) -> dict[str, Vectors]:
    """Split -> the labelled vectors of an embedding folder."""
    shards = ShardSet(folder)
    rows: dict[str, list[tuple[str, str, np.ndarray, float, list[float]]]] = {s: [] for s in splits}
    for index in range(len(shards)):
        split = str(shards.meta(index)["split"])
        if split not in rows:
            continue
        record = shards.read(index)
        layers, described = record.members.get("layers.npy"), record.members["json"]
        if not isinstance(layers, np.ndarray) or not isinstance(described, dict):
            raise CorruptError(f"{folder}: {record.key} holds no layers.npy; extract it again")
        labels = described["labels"] or {}
        sentiment, emotions = labels.get("sentiment"), labels.get("emotions")
        if sentiment is None and emotions is None:
            continue
        nan = float("nan")
        rows[split].append(
            (
                record.key,
                str(described["speaker"]),
                layers,
                nan if sentiment is None else sentiment,
                [nan] * len(EMOTIONS) if emotions is None else emotions,
            )
        )
    return {split: _vectors(found, folder, split) for split, found in rows.items()}


def _vectors(
    rows: Sequence[tuple[str, str, np.ndarray, float, list[float]]], folder: Path, split: str
) -> Vectors:
    if not rows:
        raise UsageError(f"{folder}: holds no labelled vector of split {split}")
    return Vectors(
        tuple(row[0] for row in rows),
        tuple(row[1] for row in rows),
        torch.from_numpy(np.stack([row[2] for row in rows])),
        torch.tensor([row[3] for row in rows], dtype=torch.float32),
        torch.tensor([row[4] for row in rows], dtype=torch.float32),
    )


def subset_folders(folder: Path) -> dict[str, Path]:
    """Stream subset -> folder of its embedding shards, smallest subsets first."""
    found = {}
    for manifest in sorted([*folder.glob("manifest.json"), *folder.glob("*/manifest.json")]):
        found[subset_name(json.loads(manifest.read_text())["streams"])] = manifest.parent
    if not found:
        raise UsageError(f"{folder}: holds no embedding shards; make them with extract")
    return dict(sorted(found.items(), key=lambda pair: (pair[0].count("+"), pair[0])))


def emotion() -> FinetuneRun:
    """Sentiment and six emotions by a small regressor for each stream subset."""
    return FinetuneRun("emotion")


RECIPES: Final[dict[str, Callable[[], FinetuneRun]]] = {"emotion": emotion}
