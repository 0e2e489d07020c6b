"""Self-MM on feature shards (CMU-MOSI, CMU-MOSEI, CH-SIMS) or on our encoder's embeddings.

It stands beside its ablation and baselines. Labels are sentiment; where a corpus says only negative
or positive, -1 and 1. Streams are standardised with the steps of the training items. Epochs are
chosen on dev; where a corpus has none, the last tenth of its training videos is held out for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mmembed.batch import STREAMS, Batch, Padded
from mmembed.contract import Method
from mmembed.data.dataset import Examples
from mmembed.data.example import Labels, Utterance
from mmembed.errors import UsageError
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig
from mmembed.recipes.emotion import read_vectors, subset_folders
from mmembed.recipes.groups import group_items
from mmembed.recipes.scoring import GROUP, Array, Held
from mmembed.recipes.study import FinetuneLoop, FinetuneRun, Study
from mmembed.training.optim import OptimConfig

POLARITY: Final = {"negative": -1.0, "positive": 1.0}
HELD_OUT: Final = 0.1  # of the training videos, where there is no dev split
STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the logistic regression, chosen on dev


@dataclass(frozen=True)
class SelfMmRun(FinetuneRun):
    """One run; everything that decides its result.

    Attributes:
        shards: folder of prepared features.
        embeddings: instead of it, folder of embedding shards as `mmembed extract --streams every`
            writes them; the layers of each single stream are read with learned weights.
        width: of each stream in the fusion.
        fusion: width of the fusion.
        dropout: before the fusion and in the streams.
    """

    name: str = "self_mm"
    shards: str = ""
    embeddings: str = ""
    width: int = 32
    fusion: int = 128
    dropout: float = 0.1
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.01))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=20, batch=32, seeds=(0, 1, 2, 3, 4))
    )


def self_mm() -> SelfMmRun:
    """Sentiment from features or embeddings by Self-MM, its ablation, single streams, baselines."""
    return SelfMmRun()


@dataclass(frozen=True)
class Items:
    """Labelled items of a split.

    Attributes:
        keys: N of them.
        videos: N names; items of one video (or speaker, see `grouping`) belong together.
        streams: stream -> N tensors (T, D), T = 0 where it is missing.
        sentiment: (N,).
        grouping: what `videos` are: "speaker", "dialogue", "clip", see `mmembed.recipes.groups`.
    """

    keys: tuple[str, ...]
    videos: tuple[str, ...]
    streams: Mapping[str, Sequence[Tensor]]
    sentiment: Tensor
    grouping: str = GROUP

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> Items:
        """Some of them."""
        return Items(
            tuple(self.keys[row] for row in rows),
            tuple(self.videos[row] for row in rows),
            {name: [steps[row] for row in rows] for name, steps in self.streams.items()},
            self.sentiment[list(rows)],
            self.grouping,
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
        self._layers = bool(run.embeddings)
        if bool(run.shards) == self._layers:
            raise UsageError(
                "give --shards DIR, a folder of prepared features, or --embeddings DIR, one of "
                "embedding shards"
            )
        read = read_embeddings if self._layers else read_items
        self._splits = standardised(read(Path(run.embeddings or run.shards)), self._layers)
        self.tests = {"test": held(self._splits["train"], self._splits["test"])}
        self.variants = ("self_mm", "multimodal", *self._splits["train"].streams)

    def size(self, variant: str, split: str) -> int:
        """Labelled items of a split."""
        return len(self._splits[split])

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their streams; training items have their row in the label bank."""
        items = self._splits[split]
        some = items.take(rows)
        streams = {name: Padded.stack(some.streams[name]) for name in self._streams(variant)}
        context = {"row": torch.tensor(rows)} if split == "train" else {}
        return Batch(some.keys, streams, {"sentiment": some.sentiment}, context)

    def method(self, variant: str) -> Method:
        """Self-MM, its parts sized by the data."""
        train, run = self._splits["train"], self.run
        configs = tuple(
            StreamConfig(
                name,
                train.streams[name][0].shape[1],
                "layers" if self._layers else _reading(name, train.streams[name]),
                hidden=run.width,
                out=run.width,
                dropout=run.dropout,
                post=run.width,
                layers=len(train.streams[name][0]) if self._layers else 0,
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

    @torch.no_grad()
    def answers(self, variant: str, test: str, method: Method) -> Array:
        """Sentiment of the test items."""
        batch = self.batch(variant, test, range(len(self._splits[test])))
        predicted: Array = method.predict(batch)["sentiment"].numpy()
        return predicted

    def baselines(self, test: str) -> dict[str, Array]:
        """-1 or 1 by a logistic regression on the means of all streams, strength chosen on dev."""

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
        positive = best.predict(self._splits[test].means())
        return {"logistic regression": np.where(positive, 1, -1).astype(np.float32)}


def held(train: Items, test: Items) -> Held:
    """The test items, scored as two classes, -1 and 1; those of a group are drawn together."""
    return Held(
        "sentiment",
        "acc2_pos",
        test.keys,
        test.videos,
        test.sentiment.numpy(),
        train.sentiment.numpy(),
        grouping=test.grouping,
    )


def read_items(folder: Path) -> dict[str, Items]:
    """Split -> items of a folder of feature shards that have a sentiment.

    Raises:
        UsageError: no features, no sentiment, or no items for training or test.
    """
    if not str(folder) or str(folder) == ".":
        raise UsageError("no data: give --shards DIR, a folder of prepared features")
    found: dict[str, list[tuple[Utterance, Mapping[str, Tensor], float]]] = {}
    widths: dict[str, int] = {}
    for example in Examples([folder]):
        row, sentiment = example.utterance, _sentiment(example.utterance.labels)
        if sentiment is None or row.split is None or not example.features:
            continue
        steps = {name: torch.from_numpy(x) for name, x in example.features.items()}
        widths |= {name: x.shape[1] for name, x in steps.items()}
        found.setdefault(row.split, []).append((row, steps, sentiment))
    if not {"train", "test"} <= set(found):
        raise UsageError(f"{folder}: holds no labelled features of the splits train and test")
    streams = [name for name in STREAMS if name in widths]
    splits = {}
    for split, rows in found.items():
        keys = tuple(row.key for row, *_ in rows)
        speakers, dialogues = zip(*((row.speaker, row.dialogue) for row, *_ in rows), strict=True)
        groups = group_items(keys, speakers, dialogues)
        splits[split] = Items(
            keys,
            groups.names,
            {s: [x.get(s, torch.zeros(0, widths[s])) for _, x, _ in rows] for s in streams},
            torch.tensor([sentiment for *_, sentiment in rows]),
            groups.kind,
        )
    return splits if "dev" in splits else splits | _hold_out(splits["train"])


def read_embeddings(folder: Path) -> dict[str, Items]:
    """Split -> items of a folder of embedding shards; streams are its single-stream subsets.

    Raises:
        UsageError: no single stream, or no labelled items of a split.
    """
    found = {
        subset: read_vectors(place, ("train", "dev", "test"))
        for subset, place in subset_folders(folder).items()
        if subset in STREAMS
    }
    if not found:
        raise UsageError(f"{folder}: holds no single stream; extract with --streams every")
    splits = {}
    for split, some in next(iter(found.values())).items():
        streams = {name: list(vectors[split].values) for name, vectors in found.items()}
        items = Items(some.keys, some.speakers, streams, some.sentiment)
        splits[split] = items.take(some.sentiment.isnan().logical_not().nonzero()[:, 0].tolist())
    return splits


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


def standardised(splits: Mapping[str, Items], each_step: bool = False) -> dict[str, Items]:
    """All splits, with mean 0 and deviation 1 of the training steps in every column.

    Args:
        splits: with "train" among them.
        each_step: steps are layers, and each of them is standardised by itself.
    """
    scales = {}
    for name, items in splits["train"].streams.items():
        steps = torch.stack(list(items)) if each_step else torch.cat(list(items))
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
            items.grouping,
        )
        for split, items in splits.items()
    }


def _reading(name: str, steps: Sequence[Tensor]) -> Any:
    """One vector as it is; of longer text the first step; of longer sound and pictures an LSTM."""
    if max(map(len, steps)) == 1:
        return "vector"
    return "first" if name == "text" else "lstm"
