"""Items of Self-MM: streams and a sentiment each, from feature shards or our embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.data.dataset import Examples
from mmembed.data.manifest.utterance import SENTIMENT_LIMITS, Labels, Utterance
from mmembed.errors import UsageError
from mmembed.features.prompt import Tokenizer
from mmembed.streams import STREAMS
from mmembed.studies.embeddings_data import check_scale, read_embeddings, single_streams
from mmembed.studies.feature_tensors import Standardise, features_of
from mmembed.studies.groups import ManifestItems
from mmembed.studies.scoring import TestSet, sentiment_task
from mmembed.studies.splits import SPLITS, hold_out

POLARITY: Final = {"negative": -1.0, "positive": 1.0}
HELD_OUT: Final = 0.1  # of the training groups, where there is no dev split


@dataclass(frozen=True)
class SelfMmItems(ManifestItems):
    """Labelled items of a split.

    Attributes:
        streams: stream -> N tensors (T, D), T = 0 where it is missing.
    """

    streams: Mapping[str, Sequence[Tensor]]

    @cached_property
    def sentiment(self) -> Tensor:
        """(N,) float32."""
        return torch.tensor([sentiment_of(row.labels) for row in self.rows])

    def means(self) -> NDArray[np.float32]:
        """(N, all widths) means over time, streams side by side; 0 where one is missing."""
        parts = [
            torch.stack([x.mean(0) if len(x) else torch.zeros(x.shape[1]) for x in steps])
            for steps in self.streams.values()
        ]
        return torch.cat(parts, 1).numpy()


def read_items(folder: Path) -> dict[str, SelfMmItems]:
    """Split -> items of a folder of feature shards that have a sentiment.

    Raises:
        UsageError: no folder is given, or features of one stream differ in width.
        DataError: a feature is not finite.
    """
    if not str(folder) or str(folder) == ".":
        raise UsageError("no data: give --shards DIR, a folder of prepared features")
    found: list[tuple[Utterance, Mapping[str, Tensor]]] = []
    widths: dict[str, int] = {}
    for example in Examples([folder]):
        row = example.utterance
        if sentiment_of(row.labels) is None or row.split not in SPLITS or not example.features:
            continue
        steps = features_of(example, str(folder))
        for name, x in steps.items():
            if widths.setdefault(name, x.shape[1]) != x.shape[1]:
                raise UsageError(
                    f"{folder}: {name} of {row.key} is {x.shape[1]} wide, of others {widths[name]}"
                )
        found.append((row, steps))
    streams: dict[str, Sequence[Tensor]] = {
        name: [steps.get(name, torch.zeros(0, widths[name])) for _, steps in found]
        for name in STREAMS
        if name in widths
    }
    return _by_split(SelfMmItems(tuple(row for row, _ in found), streams), folder)


def read_streams(folder: Path) -> dict[str, SelfMmItems]:
    """Split -> items of a folder of embedding shards; streams are its single-stream subsets.

    Raises:
        UsageError: no single stream.
    """
    folders = single_streams(folder)
    clips = read_embeddings(
        folders, lambda row: sentiment_of(row.labels) is not None and row.split in SPLITS
    )
    streams = {s: clips.values(s, range(len(clips))) for s in folders if len(clips.rows[s])}
    return _by_split(SelfMmItems(clips.utterances, streams), folder)


def _by_split(items: SelfMmItems, folder: Path) -> dict[str, SelfMmItems]:
    """Those of each split that has some, all rated on one scale."""
    check_scale(folder, items.rows)
    splits = np.array([row.split for row in items.rows])
    return {split: items.where(splits == split) for split in SPLITS if split in splits}


def sentiment_of(labels: Labels) -> float | None:
    """How positive an item is, where its corpus says it: by degree, or by category alone."""
    if labels.sentiment is not None:
        return labels.sentiment
    return POLARITY.get(labels.category or "")


def with_dev(
    splits: Mapping[str, SelfMmItems], folder: Path
) -> tuple[dict[str, SelfMmItems], list[str]]:
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
    train = splits["train"]  # the last tenth of its groups is dev; of one group alone of its items
    groups = train.groups.names if len({*train.groups.names}) > 1 else train.keys
    late = set(hold_out([*dict.fromkeys(groups)][::-1], HELD_OUT))
    kept, dev = ([n for n, g in enumerate(groups) if (g in late) is held] for held in (False, True))
    note = (
        f"no item of the split dev has a sentiment: {len(dev)} training items are held out for it"
    )
    return {**splits, "train": train.take(kept), "dev": train.take(dev)}, [note]


def sentiment_test(train: SelfMmItems, test: SelfMmItems) -> TestSet:
    """The test items, scored as two classes, -1 and 1; those of a group are drawn together.

    Each corpus has its conventions: CH-SIMS counts 0 as negative, the others leave it out.
    """
    task = sentiment_task(train.rows[0].labels.sentiment_limit or SENTIMENT_LIMITS[0])
    return TestSet(
        task,
        "acc2" if task == "sims" else "acc2_pos",
        test.keys,
        test.groups.names,
        test.sentiment.numpy(),
        train.sentiment.numpy(),
        grouping=test.groups.kind,
    )


def without_missing(splits: Mapping[str, SelfMmItems]) -> dict[str, SelfMmItems]:
    """All splits, without the streams that no training item has."""
    kept = [name for name, items in splits["train"].streams.items() if any(map(len, items))]
    return {
        split: replace(items, streams={name: items.streams[name] for name in kept})
        for split, items in splits.items()
    }


def cut_at_zeros(items: SelfMmItems) -> SelfMmItems:
    """Sound and picture up to their first row whose sum is 0, at least one row: the lengths of
    MMSA's pickles (`data/getLengths.py`).
    """

    def cut(steps: Tensor) -> Tensor:
        zero = (steps.sum(1) == 0).nonzero().flatten()
        return steps[: max(1, int(zero[0]))] if len(zero) else steps

    return replace(
        items,
        streams={
            name: steps if name == "text" else [cut(one) for one in steps]
            for name, steps in items.streams.items()
        },
    )


def with_tokens(items: SelfMmItems, tokenizer: Tokenizer, length: int) -> SelfMmItems:
    """Text as the tokens (T,) int64 of the transcripts, at most `length`; none without words."""
    words = [(row.transcript or "").strip() for row in items.rows]
    tokens = [
        torch.tensor(tokenizer.tokenize(text, None, length).ids if text else [], dtype=torch.int64)
        for text in words
    ]
    others = {name: steps for name, steps in items.streams.items() if name != "text"}
    return replace(items, streams={"text": tokens, **others})


def standardised(
    splits: Mapping[str, SelfMmItems], each_step: bool = False
) -> dict[str, SelfMmItems]:
    """All splits, with mean 0 and standard deviation 1 of the training steps in every column.

    A stream that no training item has is left out.

    Args:
        splits: with "train" among them.
        each_step: steps are layers, and each of them is standardised by itself.
    """
    join = torch.stack if each_step else torch.cat
    scales = {
        name: Standardise.by(join(steps))
        for name, items in splits["train"].streams.items()
        if (steps := [x for x in items if len(x)])
    }
    return {
        split: replace(
            items,
            streams={
                name: [scale(x) if len(x) else x for x in items.streams[name]]
                for name, scale in scales.items()
            },
        )
        for split, items in splits.items()
    }
