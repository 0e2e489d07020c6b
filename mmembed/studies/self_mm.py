"""Self-MM on feature shards (CMU-MOSI, CMU-MOSEI, CH-SIMS) or on our encoder's embeddings.

It stands beside its ablation and baselines. Labels are sentiment; where a corpus says only negative
or positive, -1 and 1. Streams are standardised with the steps of the training items. Epochs are
chosen on dev; where a corpus has none, the last tenth of its training videos is held out for that.
Each corpus is scored by its own conventions: CH-SIMS, rated in [-1, 1], by those of MMSA for it.

The method is the paper's, the network of the recipe `self_mm` is not the published one:

- Text arrives as features; no BERT is fine-tuned inside (published: bert-base with a rate of 5e-5).
- All streams have one size: `width` (32) for the LSTM's state, the way into the fusion and F_s.
  MMSA has 16 and 32 units for audio and video, and F_s of 32, 16 and 32 (text, audio, video).
- One AdamW with one rate (1e-3) and decay (0.01), a warm-up and a cosine decay; MMSA has Adam in
  four groups (BERT, audio, video, the rest), audio and video with rates of their own.
- A step is one batch of 32; MMSA adds up the gradients of four batches of 16 or 32.
- 20 epochs of which the best on dev is kept; MMSA stops after 8 epochs without a better one.
- Features are standardised; MMSA feeds them as they are.

So its scores are not the paper's, even on the paper's features. For those see
`mmembed.studies.self_mm_paper`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.batch import Batch, Padded
from mmembed.errors import UsageError
from mmembed.method import Method
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig
from mmembed.settings.finetune import SelfMmRun
from mmembed.studies.baselines import logistic_regression
from mmembed.studies.scoring import Array
from mmembed.studies.self_mm_data import (
    SelfMmItems,
    read_items,
    read_streams,
    sentiment_test,
    standardised,
    with_dev,
    without_missing,
)
from mmembed.studies.study import Study, decided

PREDICTED: Final = 256  # items read at once by a text encoder


class SelfMmBase(Study):
    """What Self-MM on features, on embeddings and by the settings of MMSA have in common."""

    def _begin(self, splits: Mapping[str, SelfMmItems], folder: Path) -> None:
        """Take the items of a folder, as `_as_read` makes them."""
        splits, notes = with_dev(splits, folder)
        self._plain = without_missing(splits)
        if not self._plain["train"].streams:
            raise UsageError(f"{folder}: no labelled item of the split train has any stream")
        self._splits = self._as_read(self._plain)
        train = self._splits["train"]
        if not train.sentiment.any():
            raise UsageError(f"{folder}: every item of the split train has the sentiment 0")
        tests = {"test": sentiment_test(train, self._splits["test"])}
        self.tests, undecided = decided(tests, str(folder))
        self.notes = [*notes, *undecided]
        if len({*train.sentiment.sign().tolist()} - {0.0}) < 2:
            self.notes.append("no logistic regression: training items are not of both signs")

    @abstractmethod
    def _as_read(self, splits: Mapping[str, SelfMmItems]) -> dict[str, SelfMmItems]:
        """The splits as the network reads them."""

    @property
    def _compared(self) -> Mapping[str, SelfMmItems]:
        """The splits as the logistic regression reads them."""
        return self._splits

    def size(self, variant: str, split: str) -> int:
        """Labelled items of a split."""
        return len(self._splits[split])

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their streams; training items have their row in the label bank."""
        some = self._splits[split].take(rows)
        streams = {name: Padded.stack(some.streams[name]) for name in self._streams(variant)}
        context = {"row": torch.tensor(rows)} if split == "train" else {}
        return Batch(some.keys, streams, {"sentiment": some.sentiment}, context)

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
    def predict(self, variant: str, test: str, method: Method) -> Array:
        """Sentiment of the test items."""
        size = len(self._splits[test])
        at_once = PREDICTED if self.large else size
        device = next(method.parameters()).device
        parts = [
            self.batch(variant, test, range(start, min(size, start + at_once))).to(device)
            for start in range(0, size, at_once)
        ]
        return torch.cat([method.predict(part)["sentiment"].cpu() for part in parts]).numpy()

    def baselines(self, test: str) -> dict[str, Array]:
        """-1 or 1 by a logistic regression on the means of all streams, strength chosen on dev.

        Where the training items are of one sign alone there is none. Where dev has items of no
        sign, the strength in the middle is taken.
        """

        def polar(split: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            items = self._compared[split]
            kept = items.sentiment.numpy() != 0
            return items.means()[kept], items.sentiment.numpy()[kept] > 0

        train = polar("train")
        if len({*train[1].tolist()}) < 2:
            return {}  # there is nothing to tell apart
        model = logistic_regression(train, polar("dev"))
        positive = model.predict(self._compared[test].means())
        return {"logistic regression": np.where(positive, 1, -1).astype(np.float32)}


class SelfMmStudy(SelfMmBase):
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
        self._begin(read(folder), folder)
        self.variants = ("self_mm", "multimodal", *self._splits["train"].streams)

    def _as_read(self, splits: Mapping[str, SelfMmItems]) -> dict[str, SelfMmItems]:
        return standardised(splits, self._layers)

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
