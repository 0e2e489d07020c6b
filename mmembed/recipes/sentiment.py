"""Self-MM on feature shards (CMU-MOSI, CMU-MOSEI, CH-SIMS), beside its ablation and baselines.

Labels are sentiment; where a corpus says only negative or positive, -1 and 1. Streams are
standardised with the steps of the training items. Epochs are chosen on dev; where a corpus has
none, the last tenth of its training videos is held out for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save as to_safetensors
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mmembed.batch import STREAMS, Batch, Padded
from mmembed.contract import Method
from mmembed.data.atomic import atomic_file
from mmembed.data.dataset import Examples
from mmembed.data.example import Labels
from mmembed.errors import UsageError
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig
from mmembed.metrics import accuracy, bootstrap_interval, sentiment_scores, trivial_sentiment
from mmembed.recipes.study import FinetuneLoop, FinetuneRun, Models, Study
from mmembed.training.optim import OptimConfig
from mmembed.training.tracking import write_json

POLARITY: Final = {"negative": -1.0, "positive": 1.0}
HELD_OUT: Final = 0.1  # of the training videos, where there is no dev split
STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the logistic regression, chosen on dev


@dataclass(frozen=True)
class SelfMmRun(FinetuneRun):
    """One run; everything that decides its result.

    Attributes:
        shards: folder of prepared features.
        width: of each stream in the fusion.
        fusion: width of the fusion.
        dropout: before the fusion and in the streams.
    """

    name: str = "self_mm"
    shards: str = ""
    width: int = 32
    fusion: int = 128
    dropout: float = 0.1
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.01))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=20, batch=32, seeds=(0, 1, 2, 3, 4))
    )


def self_mm() -> SelfMmRun:
    """Sentiment from feature streams by Self-MM, its ablation, single streams and baselines."""
    return SelfMmRun()


@dataclass(frozen=True)
class Items:
    """Labelled items of a split.

    Attributes:
        keys: N of them.
        videos: N names; items of one video belong together.
        streams: stream -> N tensors (T, D), T = 0 where it is missing.
        sentiment: (N,).
    """

    keys: tuple[str, ...]
    videos: tuple[str, ...]
    streams: Mapping[str, Sequence[Tensor]]
    sentiment: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> Items:
        """Some of them."""
        return Items(
            tuple(self.keys[row] for row in rows),
            tuple(self.videos[row] for row in rows),
            {name: [steps[row] for row in rows] for name, steps in self.streams.items()},
            self.sentiment[list(rows)],
        )

    def means(self) -> NDArray[np.float32]:
        """(N, all widths) means over time, streams side by side; 0 where one is missing."""
        parts = [
            torch.stack([x.mean(0) if len(x) else torch.zeros(x.shape[1]) for x in steps])
            for steps in self.streams.values()
        ]
        together: NDArray[np.float32] = torch.cat(parts, 1).numpy()
        return together


class SelfMmStudy(Study):
    """Variants: Self-MM, the same without the streams' own labels, and each stream by itself."""

    def __init__(self, run: SelfMmRun) -> None:
        self.run: SelfMmRun = run
        self.controls = {}
        self._splits = _standardised(read_items(Path(run.shards)))
        self.variants = ("self_mm", "multimodal", *self._splits["train"].streams)

    def size(self, variant: str, split: str) -> int:
        """Labelled items of a split."""
        return len(self._splits[split])

    def batch(self, variant: str, split: str, rows: Sequence[int] | None = None) -> Batch:
        """Their streams; training items have their row in the label bank."""
        items = self._splits[split]
        chosen = range(len(items)) if rows is None else rows
        some = items.take(chosen)
        streams = {name: Padded.stack(some.streams[name]) for name in self._streams(variant)}
        context = {"row": torch.tensor(chosen)} if split == "train" else {}
        return Batch(some.keys, streams, {"sentiment": some.sentiment}, context)

    def method(self, variant: str) -> Method:
        """Self-MM, its parts sized by the data."""
        train, run = self._splits["train"], self.run
        configs = tuple(
            StreamConfig(
                name,
                train.streams[name][0].shape[1],
                _reading(name, train.streams[name]),
                hidden=run.width,
                out=run.width,
                dropout=run.dropout,
                post=run.width,
            )
            for name in self._streams(variant)
        )
        config = SelfMmConfig(
            streams=configs,
            items=len(train),
            fusion=run.fusion,
            fusion_dropout=run.dropout,
            limit=float(train.sentiment.abs().max()),
            unimodal_weight=1.0 if variant == "self_mm" else 0.0,
        )
        return SelfMm(config)

    def _streams(self, variant: str) -> tuple[str, ...]:
        streams = tuple(self._splits["train"].streams)
        return (variant,) if variant in streams else streams

    def results(self, models: Models) -> dict[str, Any]:
        """Scores on test: mean and deviation over seeds, interval over videos, baselines."""
        train, test = self._splits["train"], self._splits["test"]
        truth = test.sentiment.numpy()
        return {
            "variants": {
                variant: _scores(truth, self._predict(variant, methods), test.videos)
                for variant, methods in models.items()
            },
            "logistic regression": {"acc2_pos": self._logistic()},
            "trivial": trivial_sentiment(train.sentiment.numpy(), truth),
            "seeds": list(self.run.loop.seeds),
            "items": {split: len(items) for split, items in self._splits.items()},
        }

    @torch.no_grad()
    def _predict(self, variant: str, methods: Sequence[Method]) -> list[NDArray[np.float32]]:
        batch = self.batch(variant, "test")
        return [method.eval().predict(batch)["sentiment"].numpy() for method in methods]

    def _logistic(self) -> float:
        """Accuracy of a logistic regression on the means of all streams, strength chosen on dev."""

        def polar(split: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            items = self._splits[split]
            kept = items.sentiment.numpy() != 0
            return items.means()[kept], items.sentiment.numpy()[kept] > 0

        vectors, classes = polar("train")
        fitted = [
            LogisticRegression(C=strength, max_iter=2000).fit(vectors, classes)
            for strength in STRENGTHS
        ]
        best = max(fitted, key=lambda model: float(model.score(*polar("dev"))))
        return float(best.score(*polar("test")))

    def save(self, out: Path, models: Models) -> None:
        """Weights of every method; truth and mean predictions of each variant."""
        for variant, methods in models.items():
            for seed, method in zip(self.run.loop.seeds, methods, strict=True):
                with atomic_file(out / variant / f"seed-{seed}.safetensors") as file:
                    state = method.state_dict()
                    file.write(to_safetensors({k: v.contiguous() for k, v in state.items()}))
        test = self._splits["test"]
        predicted = {
            variant: np.mean(self._predict(variant, methods), axis=0).tolist()
            for variant, methods in models.items()
        }
        told = {"keys": list(test.keys), "videos": list(test.videos)}
        truth = test.sentiment.tolist()
        write_json(out / "predictions.json", {**told, "truth": truth, "predicted": predicted})

    def table(self, results: Mapping[str, Any]) -> Iterator[str]:
        """A row for each variant, then the baselines."""
        yield f"{'':20} {'Acc-2':>16} {'95 % interval':>14} {'F1':>6} {'MAE':>6} {'r':>6}"
        for variant, scores in results["variants"].items():
            acc = scores["acc2_pos"]
            yield (
                f"{variant:20} {acc['mean']:7.3f} +- {acc['std']:5.3f} "
                f"{acc['low']:7.3f}-{acc['high']:.3f} {scores['f1_pos']['mean']:6.3f} "
                f"{scores['mae']['mean']:6.3f} {scores['correlation']['mean']:6.3f}"
            )
        yield f"{'logistic regression':20} {results['logistic regression']['acc2_pos']:7.3f}"
        trivial = results["trivial"]
        yield f"{'(mean of training)':20} {trivial['acc2_pos']:7.3f}"


def read_items(folder: Path) -> dict[str, Items]:
    """Split -> items of a folder of feature shards that have a sentiment.

    Raises:
        UsageError: no features, no sentiment, or no items for training or test.
    """
    if not str(folder) or str(folder) == ".":
        raise UsageError("no data: give --shards DIR, a folder of prepared features")
    found: dict[str, list[tuple[str, str, Mapping[str, Tensor], float]]] = {}
    widths: dict[str, int] = {}
    for example in Examples([folder]):
        row, sentiment = example.utterance, _sentiment(example.utterance.labels)
        if sentiment is None or row.split is None or not example.features:
            continue
        steps = {name: torch.from_numpy(x) for name, x in example.features.items()}
        widths |= {name: x.shape[1] for name, x in steps.items()}
        found.setdefault(row.split, []).append((row.key, row.dialogue or row.key, steps, sentiment))
    if not {"train", "test"} <= set(found):
        raise UsageError(f"{folder}: holds no labelled features of the splits train and test")
    streams = [name for name in STREAMS if name in widths]
    splits = {
        split: Items(
            tuple(key for key, *_ in rows),
            tuple(video for _, video, *_ in rows),
            {s: [x.get(s, torch.zeros(0, widths[s])) for _, _, x, _ in rows] for s in streams},
            torch.tensor([sentiment for *_, sentiment in rows]),
        )
        for split, rows in found.items()
    }
    return splits if "dev" in splits else splits | _hold_out(splits["train"])


def _sentiment(labels: Labels) -> float | None:
    if labels.sentiment is not None:
        return labels.sentiment
    return POLARITY.get(labels.category or "")


def _hold_out(train: Items) -> dict[str, Items]:
    """The last tenth of the training videos as dev."""
    videos = list(dict.fromkeys(train.videos))
    late = set(videos[-max(1, round(HELD_OUT * len(videos))) :])
    rows = range(len(train))
    return {
        "train": train.take([row for row in rows if train.videos[row] not in late]),
        "dev": train.take([row for row in rows if train.videos[row] in late]),
    }


def _standardised(splits: Mapping[str, Items]) -> dict[str, Items]:
    """All splits, with mean 0 and deviation 1 of the training steps in every column."""
    scales = {}
    for name, items in splits["train"].streams.items():
        steps = torch.cat(list(items))
        scales[name] = steps.mean(0), steps.std(0, unbiased=False).clamp(min=1e-5)
    return {
        split: Items(
            items.keys,
            items.videos,
            {
                name: [(x - scales[name][0]) / scales[name][1] for x in steps]
                for name, steps in items.streams.items()
            },
            items.sentiment,
        )
        for split, items in splits.items()
    }


def _reading(name: str, steps: Sequence[Tensor]) -> Any:
    """One vector as it is; of longer text the first step; of longer sound and pictures an LSTM."""
    if max(map(len, steps)) == 1:
        return "vector"
    return "first" if name == "text" else "lstm"


def _scores(
    truth: NDArray[np.float32], predicted: Sequence[NDArray[np.float32]], videos: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean and deviation over seeds; of Acc-2 the interval over videos too."""
    each = [sentiment_scores(truth, found) for found in predicted]
    scores = {
        name: {"mean": float(np.mean(values)), "std": float(np.std(values))}
        for name in each[0]
        for values in [[scored[name] for scored in each]]
    }

    def right(rows: NDArray[np.int64]) -> float:
        polar = rows[truth[rows] != 0]
        return float(np.mean([accuracy(truth[polar] > 0, p[polar] > 0) for p in predicted]))

    low, high = bootstrap_interval(right, videos)
    scores["acc2_pos"] |= {"low": low, "high": high}
    return scores
