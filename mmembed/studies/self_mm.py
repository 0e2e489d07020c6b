"""Self-MM on feature shards (CMU-MOSI, CMU-MOSEI, CH-SIMS) or on our encoder's embeddings.

It stands beside its ablation and baselines. Labels are sentiment; where a corpus says only negative
or positive, -1 and 1. Streams are standardised with the steps of the training items. Epochs are
chosen on dev; where a corpus has none, the last tenth of its training videos is held out for that.
Each corpus is scored by its own conventions: CH-SIMS, rated in [-1, 1], by those of MMSA for it.

The method is the paper's, the network is not the published one:

- Text arrives as features; no BERT is fine-tuned inside (published: bert-base with a rate of 5e-5).
- All streams have one size: `width` (32) for the LSTM's state, the way into the fusion and F_s.
  MMSA has 16 and 32 units for audio and video, and F_s of 32, 16 and 32 (text, audio, video).
- One AdamW with one rate (1e-3) and decay (0.01), a warm-up and a cosine decay; MMSA has Adam in
  four groups (BERT, audio, video, the rest), audio and video with rates of their own.
- A step is one batch of 32; MMSA adds up the gradients of four batches of 16 or 32.
- 20 epochs of which the best on dev is kept; MMSA stops after 8 epochs without a better one.
- Features are standardised; MMSA feeds them as they are.

So its scores are not the paper's, even on the paper's features.
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
from mmembed.data.dataset import Examples
from mmembed.data.manifest.utterance import SENTIMENT_LIMITS, Labels, Utterance
from mmembed.errors import UsageError
from mmembed.method import Method
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig
from mmembed.studies.embeddings_data import SPLITS, read_embeddings, subset_folders
from mmembed.studies.feature_tensors import features_of
from mmembed.studies.groups import group_items
from mmembed.studies.scoring import GROUP, Array, TestSet, sentiment_task
from mmembed.studies.study import FinetuneLoop, FinetuneRun, Study, decided
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
        grouping: what `videos` are: "speaker", "dialogue", "clip", see `mmembed.studies.groups`.
        limit: sentiment is rated in [-limit, limit].
    """

    keys: tuple[str, ...]
    videos: tuple[str, ...]
    streams: Mapping[str, Sequence[Tensor]]
    sentiment: Tensor
    grouping: str = GROUP
    limit: float = SENTIMENT_LIMITS[0]

    @classmethod
    def of(
        cls,
        rows: Sequence[Utterance],
        streams: Mapping[str, Sequence[Tensor]],
        sentiment: Sequence[float],
    ) -> Items:
        """Items of these manifest rows, in their order."""
        keys = tuple(row.key for row in rows)
        groups = group_items(keys, [r.speaker for r in rows], [r.dialogue for r in rows])
        limit = rows[0].labels.sentiment_limit or SENTIMENT_LIMITS[0]
        return cls(keys, groups.names, streams, torch.tensor(sentiment), groups.kind, limit)

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
            self.limit,
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
        folder = Path(run.embeddings or run.shards)
        read = read_streams if self._layers else read_items
        splits, notes = with_dev(read(folder), folder)
        self._splits = standardised(splits, self._layers)
        if not self._splits["train"].streams:
            raise UsageError(f"{folder}: no labelled item of the split train has any stream")
        if not self._splits["train"].sentiment.any():
            raise UsageError(f"{folder}: every item of the split train has the sentiment 0")
        tests = {"test": held(self._splits["train"], self._splits["test"])}
        self.tests, undecided = decided(tests, str(folder))
        self.notes = [*notes, *undecided]
        if len({*self._splits["train"].sentiment.sign().tolist()} - {0.0}) < 2:
            self.notes.append("no logistic regression: training items are not of both signs")
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
                "layers" if self._layers else self._reading(name),
                hidden=run.width,
                out=run.width,
                dropout=run.dropout,
                post=run.width,
                layers=max(map(len, train.streams[name])) if self._layers else 0,
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

    def _reading(self, stream: str) -> Any:
        """One vector as it is; of longer text the first step; of longer other streams an LSTM."""
        longest = max(len(x) for items in self._splits.values() for x in items.streams[stream])
        if longest == 1:
            return "vector"
        return "first" if stream == "text" else "lstm"

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
        """-1 or 1 by a logistic regression on the means of all streams, strength chosen on dev.

        Where the training items are of one sign alone there is none. Where dev has items of no
        sign, the strength in the middle is taken.
        """

        def polar(split: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            items = self._splits[split]
            kept = items.sentiment.numpy() != 0
            return items.means()[kept], items.sentiment.numpy()[kept] > 0

        vectors, classes = polar("train")
        if len({*classes.tolist()}) < 2:
            return {}  # there is nothing to tell apart
        fitted = [
            LogisticRegression(C=strength, max_iter=2000).fit(vectors, classes)
            for strength in STRENGTHS
        ]
        asked, truth = polar("dev")
        best = fitted[len(fitted) // 2]
        if len(asked):
            best = max(fitted, key=lambda model: float(model.score(asked, truth)))
        positive = best.predict(self._splits[test].means())
        return {"logistic regression": np.where(positive, 1, -1).astype(np.float32)}


def held(train: Items, test: Items) -> TestSet:
    """The test items, scored as two classes, -1 and 1; those of a group are drawn together.

    Each corpus has its conventions: CH-SIMS counts 0 as negative, the others leave it out.
    """
    task = sentiment_task(train.limit)
    return TestSet(
        task,
        "acc2" if task == "sims" else "acc2_pos",
        test.keys,
        test.videos,
        test.sentiment.numpy(),
        train.sentiment.numpy(),
        grouping=test.grouping,
    )


def read_items(folder: Path) -> dict[str, Items]:
    """Split -> items of a folder of feature shards that have a sentiment.

    Raises:
        UsageError: no folder is given, or features of one stream differ in width.
        DataError: a feature is not finite.
    """
    if not str(folder) or str(folder) == ".":
        raise UsageError("no data: give --shards DIR, a folder of prepared features")
    found: dict[str, list[tuple[Utterance, Mapping[str, Tensor]]]] = {}
    widths: dict[str, int] = {}
    for example in Examples([folder]):
        row = example.utterance
        if _sentiment(row.labels) is None or row.split not in SPLITS or not example.features:
            continue
        steps = features_of(example, str(folder))
        for name, x in steps.items():
            if widths.setdefault(name, x.shape[1]) != x.shape[1]:
                raise UsageError(
                    f"{folder}: {name} of {row.key} is {x.shape[1]} wide, of others {widths[name]}"
                )
        found.setdefault(row.split, []).append((row, steps))
    _check_scale(folder, [row for rows in found.values() for row, _ in rows])
    streams = [name for name in STREAMS if name in widths]
    return {
        split: Items.of(
            [row for row, _ in rows],
            {s: [x.get(s, torch.zeros(0, widths[s])) for _, x in rows] for s in streams},
            _sentiments([row for row, _ in rows]),
        )
        for split, rows in found.items()
    }


def read_streams(folder: Path) -> dict[str, Items]:
    """Split -> items of a folder of embedding shards; streams are its single-stream subsets.

    Raises:
        UsageError: no single stream.
    """
    folders = {s: place for s, place in subset_folders(folder).items() if s in STREAMS}
    if not folders:
        raise UsageError(f"{folder}: holds no single stream; extract with --streams every")
    clips = read_embeddings(
        folders, lambda row: _sentiment(row.labels) is not None and row.split in SPLITS
    )
    _check_scale(folder, clips.utterances)
    streams = [stream for stream in folders if len(clips.rows[stream])]
    splits = {}
    for split in SPLITS:
        rows = np.flatnonzero(clips.splits == split)
        some = [clips.utterances[row] for row in rows]
        if some:
            values = {stream: clips.values(stream, rows) for stream in streams}
            splits[split] = Items.of(some, values, _sentiments(some))
    return splits


def _sentiments(rows: Sequence[Utterance]) -> list[float]:
    """Of rows that have one."""
    return [x for row in rows if (x := _sentiment(row.labels)) is not None]


def _check_scale(folder: Path, rows: Sequence[Utterance]) -> None:
    """How strong a feeling is and which it is are no labels of one study; see `_sentiment`."""
    scales: dict[str, str] = {}
    for row in rows:
        limit = row.labels.sentiment_limit or SENTIMENT_LIMITS[0]
        scale = "a category alone"
        if row.labels.sentiment is not None:
            scale = f"a sentiment in [-{limit:g}, {limit:g}]"
        scales.setdefault(scale, row.key)
    if len(scales) > 1:
        each = ", ".join(f"{key} has {scale}" for scale, key in scales.items())
        raise UsageError(f"{folder}: labels on different scales: {each}; study them apart")


def _sentiment(labels: Labels) -> float | None:
    if labels.sentiment is not None:
        return labels.sentiment
    return POLARITY.get(labels.category or "")


def with_dev(splits: Mapping[str, Items], folder: Path) -> tuple[dict[str, Items], list[str]]:
    """The splits, some of training held out as dev where there is none; and notes on that.

    Raises:
        UsageError: no labelled items to train or to test on, or a single one to train on.
    """
    if lacking := [split for split in ("train", "test") if split not in splits]:
        raise UsageError(
            f"{folder}: no item of the split {' and '.join(lacking)} has a sentiment (or the "
            f"category {' or '.join(POLARITY)})"
        )
    if "dev" in splits:
        return dict(splits), []
    if len(splits["train"]) < 2:
        raise UsageError(
            f"{folder}: one labelled item of the split train and none of dev: another is needed "
            "to choose epochs by"
        )
    found = _hold_out(splits["train"])
    held = len(found["dev"])
    return {**splits, **found}, [
        f"no item of the split dev has a sentiment: {held} training items are held out for it"
    ]


def _hold_out(train: Items) -> dict[str, Items]:
    """The last tenth of the training videos as dev; of one video alone the last tenth of it."""
    of = train.videos if len({*train.videos}) > 1 else train.keys
    videos = list(dict.fromkeys(of))
    late = set(videos[-max(1, round(HELD_OUT * len(videos))) :])
    rows = range(len(train))
    return {
        "train": train.take([row for row in rows if of[row] not in late]),
        "dev": train.take([row for row in rows if of[row] in late]),
    }


def standardised(splits: Mapping[str, Items], each_step: bool = False) -> dict[str, Items]:
    """All splits, with mean 0 and deviation 1 of the training steps in every column.

    A stream that no training item has is left out.

    Args:
        splits: with "train" among them.
        each_step: steps are layers, and each of them is standardised by itself.
    """
    scales = {}
    for name, items in splits["train"].streams.items():
        held = [steps for steps in items if len(steps)]
        if not held:
            continue
        steps = torch.stack(held) if each_step else torch.cat(held)
        scales[name] = steps.mean(0), steps.std(0, unbiased=False).clamp(min=1e-5)
    return {
        split: Items(
            items.keys,
            items.videos,
            {
                name: [(x - mean) / scale if len(x) else x for x in items.streams[name]]
                for name, (mean, scale) in scales.items()
            },
            items.sentiment,
            items.grouping,
            items.limit,
        )
        for split, items in splits.items()
    }
