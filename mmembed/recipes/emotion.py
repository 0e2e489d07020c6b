"""The emotion regressor on embedding shards, scored on speakers it has never heard.

Each stream subset has a regressor of its own. Sentiment by the conventions of CMU-MOSEI; thresholds
of the six emotions are chosen on dev.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.batch import Batch, Padded, subset_name
from mmembed.contract import Method
from mmembed.data.example import EMOTIONS
from mmembed.data.shards import ShardSet
from mmembed.errors import CorruptError, UsageError
from mmembed.methods.emotion import EmotionConfig, EmotionRegressor
from mmembed.metrics import emotion_scores, trivial_emotions
from mmembed.recipes.scoring import Array, Held
from mmembed.recipes.study import FinetuneLoop, FinetuneRun, Study, Trained
from mmembed.training.optim import OptimConfig
from mmembed.training.tracking import write_json

SPLITS: Final = ("train", "dev", "test")


@dataclass(frozen=True)
class EmotionRun(FinetuneRun):
    """One run; everything that decides its result.

    Attributes:
        embeddings: folder with one folder of embedding shards for each stream subset, or with
            shards itself.
        untrained: the same of the untrained encoder, for comparison; optional.
    """

    name: str = "emotion"
    embeddings: str = ""
    untrained: str | None = None
    method: EmotionConfig = field(default_factory=EmotionConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=1e-2, warmup=0.05, weight_decay=0.05)
    )
    loop: FinetuneLoop = field(default_factory=FinetuneLoop)


def emotion() -> EmotionRun:
    """Sentiment and six emotions by a small regressor for each stream subset."""
    return EmotionRun()


class EmotionStudy(Study):
    """Variants are stream subsets; items are clips."""

    def __init__(self, run: EmotionRun) -> None:
        self._folders = subset_folders(Path(run.embeddings))
        self._data = {
            subset: read_vectors(folder, SPLITS) for subset, folder in self._folders.items()
        }
        self.variants = tuple(self._data)
        _, layers, width = next(iter(self._data.values()))["train"].values.shape
        self.run: EmotionRun = replace(run, method=replace(run.method, layers=layers, width=width))
        some = self._data[self.variants[-1]]
        self.tests = {"sentiment": _held(some["train"], some["test"])}
        if run.untrained:
            untrained = replace(run, embeddings=run.untrained, untrained=None)
            self.controls = {"untrained": EmotionStudy(untrained)}

    def size(self, variant: str, split: str) -> int:
        """Labelled clips of a split."""
        return len(self._data[variant][split])

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their vectors."""
        return self._data[variant][split].batch(rows)

    def method(self, variant: str) -> Method:
        """A regressor that knows mean and deviation of the training vectors."""
        model = EmotionRegressor(self.run.method)
        model.standardise_by(self._data[variant]["train"].values)
        return model

    @torch.no_grad()
    def answers(self, variant: str, test: str, method: Method) -> Array:
        """Sentiment of the test clips."""
        splits = self._data[variant]
        predicted = method.predict(splits["test"].batch())["sentiment"].numpy()
        answered: Array = predicted[_rated(splits["test"])]
        return answered

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """Scores of each emotion, and which layers the regressors of all streams read."""
        everything = self.variants[-1]
        train, test = self._data[everything]["train"], self._data[everything]["test"]
        write_json(out / "predictions.json", _predictions(trained(everything), test))
        return {
            "emotions": {
                "variants": {
                    subset: _emotions(trained(subset), splits["dev"], splits["test"])
                    for subset, splits in self._data.items()
                },
                "trivial": trivial_emotions(
                    train.emotions.numpy(), test.emotions.numpy(), list(EMOTIONS)
                ),
            },
            "layer_weights": self._layer_weights(trained(everything)),
        }

    def _layer_weights(self, models: Sequence[Method]) -> dict[str, float]:
        """Mean over seeds."""
        layers = ShardSet(self._folders[self.variants[-1]]).manifest["layers"]
        regressors = [model for model in models if isinstance(model, EmotionRegressor)]
        weights = torch.stack([model.layers.weights.detach() for model in regressors]).mean(0)
        return dict(zip(layers, weights.tolist(), strict=True))


def _rated(vectors: Vectors) -> NDArray[np.bool_]:
    """(N,) whether the sentiment is known."""
    rated: NDArray[np.bool_] = ~vectors.sentiment.isnan().numpy()
    return rated


def _held(train: Vectors, test: Vectors) -> Held:
    """The test clips whose sentiment is known."""
    rated = _rated(test)
    return Held(
        "sentiment",
        "correlation",
        tuple(np.array(test.keys)[rated].tolist()),
        tuple(np.array(test.speakers)[rated].tolist()),
        test.sentiment.numpy()[rated],
        train.sentiment.numpy()[_rated(train)],
    )


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
            raise CorruptError(
                f"{folder}: {record.key} holds no layers.npy; extract it with utterances"
            )
        labels = described["labels"] or {}
        sentiment, emotions = labels.get("sentiment"), labels.get("emotions")
        if sentiment is None and emotions is None:
            continue
        nan = float("nan")
        rows[split].append(
            (
                record.key,
                str(described["speaker"]),
                layers.astype(np.float32),
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


@torch.no_grad()
def _predict(models: Sequence[Method], vectors: Vectors) -> list[dict[str, NDArray[np.float32]]]:
    batch = vectors.batch()
    return [{name: v.numpy() for name, v in model.predict(batch).items()} for model in models]


def _emotions(models: Sequence[Method], dev: Vectors, test: Vectors) -> dict[str, Any]:
    """Scores of each emotion by one stream subset; thresholds are chosen on dev."""
    shown = [
        emotion_scores(test.emotions.numpy(), found["emotions"], EMOTIONS, _thresholds(model, dev))
        for model, found in zip(models, _predict(models, test), strict=True)
    ]
    return {
        emotion: {score: _spread([s[emotion][score] for s in shown]) for score in ("wa", "f1")}
        for emotion in EMOTIONS
    }


def _thresholds(model: Method, dev: Vectors) -> list[float]:
    """For each emotion the intensity from which it counts as present: best balanced accuracy."""
    predicted = _predict([model], dev)[0]["emotions"]
    truth = dev.emotions.numpy()
    chosen = []
    for e, emotion in enumerate(EMOTIONS):
        candidates = np.quantile(predicted[:, e], np.linspace(0.05, 0.95, 19))
        scores = [
            emotion_scores(truth[:, [e]], predicted[:, [e]], [emotion], c)[emotion]["wa"]
            for c in candidates
        ]
        chosen.append(float(candidates[int(np.argmax(scores))]))
    return chosen


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}


def _predictions(models: Sequence[Method], test: Vectors) -> dict[str, Any]:
    """Truth and prediction (mean over seeds) for each test item."""
    predicted = _predict(models, test)
    mean = {name: np.mean([p[name] for p in predicted], 0) for name in predicted[0]}
    return {
        "keys": list(test.keys),
        "speakers": list(test.speakers),
        "sentiment": {
            "truth": test.sentiment.tolist(),
            "predicted": mean["sentiment"].tolist(),
        },
        "emotions": {"truth": test.emotions.tolist(), "predicted": mean["emotions"].tolist()},
    }
