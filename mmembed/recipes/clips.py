"""Labelled clips of several corpora as a frozen encoder sees them, split by speaker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mmembed.batch import Padded
from mmembed.data.example import EMOTIONS
from mmembed.data.shards import ShardSet
from mmembed.errors import UsageError
from mmembed.recipes.embeddings_data import SPLITS, subset_folders

ADJECTIVES: Final = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "joy": "happy",
    "sadness": "sad", "surprise": "surprised",
}  # fmt: skip
"""What corpora call an emotion -> the word for who feels it."""

EVERY: Final = 5  # of so many speakers one is for test and one for dev

Row = tuple[str, str, Tensor, dict[str, float] | str]


@dataclass(frozen=True)
class Clips:
    """Labelled clips.

    Attributes:
        keys: N of them.
        speakers: N.
        corpora: N names.
        steps: N tensors (T, D): the encoder's frames, or its layers.
        emotions: (N, E) 1 = present, 0 = absent, NaN = the corpus does not tell.
    """

    keys: tuple[str, ...]
    speakers: tuple[str, ...]
    corpora: tuple[str, ...]
    steps: tuple[Tensor, ...]
    emotions: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: Sequence[int]) -> Clips:
        """Some of them."""
        return Clips(
            tuple(self.keys[row] for row in rows),
            tuple(self.speakers[row] for row in rows),
            tuple(self.corpora[row] for row in rows),
            tuple(self.steps[row] for row in rows),
            self.emotions[list(rows)],
        )

    def where(self, kept: Tensor) -> Clips:
        """Those for which (N,) is true."""
        return self.take(kept.nonzero()[:, 0].tolist())

    def padded(self) -> Padded:
        """(N, T, D) their steps."""
        return Padded.stack(self.steps)


def read_clips(
    folders: Sequence[str], streams: str, reads: str
) -> tuple[dict[str, Clips], tuple[str, ...], str]:
    """Clips of "train", "dev" and "test", the names of their E emotions, and the encoder's SHA-256.

    A corpus is named as its folder. Where its own splits keep speakers apart they are taken;
    else its speakers are dealt out in alphabetical order: of five the first is for test, the second
    for dev.

    Args:
        folders: of embedding shards, one a corpus.
        streams: the stream subset that is read.
        reads: "layers" or "frames".

    Raises:
        UsageError: no folder, one without labels, speakers or what is to be read; too few speakers;
            or the folders are of different encoders.
    """
    if not folders:
        raise UsageError("no data: give --embeddings DIR [DIR ...], made by extract")
    shards = {folder: ShardSet(_subset_folder(Path(folder), streams)) for folder in folders}
    encoders = {folder: str(found.manifest["encoder_sha256"]) for folder, found in shards.items()}
    if len(set(encoders.values())) > 1:
        each = ", ".join(f"{folder} of {sha[:12]}" for folder, sha in encoders.items())
        raise UsageError(f"embeddings of different encoders: {each}")
    rows: list[tuple[str, str, Row]] = []
    for folder, found in shards.items():
        corpus = [_row(folder, found, index, reads) for index in range(len(found))]
        labelled = [row for row in corpus if row[3]]
        if not labelled:
            raise UsageError(f"{folder}: no clip has a label of emotion")
        splits = _speaker_splits(folder, found)
        rows += [(Path(folder).name, splits[row[1]], row) for row in labelled]
    told = _told(rows)
    names = tuple(sorted({name for emotions in told for name in emotions}))
    nan = float("nan")
    clips = Clips(
        tuple(row[0] for *_, row in rows),
        tuple(row[1] for *_, row in rows),
        tuple(corpus for corpus, *_ in rows),
        tuple(row[2] for *_, row in rows),
        torch.tensor([[emotions.get(name, nan) for name in names] for emotions in told]),
    )
    split = np.array([split for _, split, _ in rows])
    parts = {name: clips.where(torch.from_numpy(split == name)) for name in SPLITS}
    return parts, names, next(iter(encoders.values()))


def _subset_folder(folder: Path, streams: str) -> Path:
    found = subset_folders(folder)
    if streams not in found:
        raise UsageError(f"{folder}: holds no embeddings of {streams}, but of {', '.join(found)}")
    return found[streams]


def _row(folder: str, shards: ShardSet, index: int, reads: str) -> Row:
    """Key, speaker, steps, and what of all its labels is present, or a category ("" = none)."""
    record = shards.read(index, [f"{reads}.npy", "json"])
    steps, described = record.members.get(f"{reads}.npy"), record.members.get("json")
    if not isinstance(steps, np.ndarray) or not isinstance(described, Mapping):
        how = "frame" if reads == "frames" else "utterance"
        raise UsageError(
            f"{folder}: {record.key} holds no {reads}; extract it with --granularity {how}"
        )
    labels: Mapping[str, Any] = described["labels"] or {}
    known: dict[str, float] | str = _word(labels.get("category") or "")
    if labels.get("emotions") is not None:
        intensities = zip(EMOTIONS, labels["emotions"], strict=True)
        known = {_word(name): float(value > 0) for name, value in intensities}
    return record.key, str(described["speaker"]), torch.from_numpy(steps.astype(np.float32)), known


def _word(name: str) -> str:
    return ADJECTIVES.get(name, name)


def _told(rows: Sequence[tuple[str, str, Row]]) -> list[dict[str, float]]:
    """Of each clip what is present (1) and absent (0): a category stands among its corpus' own."""
    categories: dict[str, set[str]] = {}
    for corpus, _, (*_, known) in rows:
        if isinstance(known, str):
            categories.setdefault(corpus, set()).add(known)
    return [
        {name: float(name == known) for name in categories[corpus]}
        if isinstance(known, str)
        else known
        for corpus, _, (*_, known) in rows
    ]


def _speaker_splits(folder: str, shards: ShardSet) -> dict[str, str]:
    """Speaker -> split; `heldout` clips go with the training clips of their speaker."""
    own: dict[str, set[str]] = {}
    for index in range(len(shards)):
        meta = shards.meta(index)
        if meta["speaker"] is None:
            raise UsageError(f"{folder}: {shards.key(index)} names no speaker to split it by")
        split = str(meta["split"])
        own.setdefault(str(meta["speaker"]), set()).add("train" if split == "heldout" else split)
    if set().union(*own.values()) == set(SPLITS) and all(len(found) == 1 for found in own.values()):
        return {speaker: found.pop() for speaker, found in own.items()}
    if len(own) < 3:
        raise UsageError(f"{folder}: {len(own)} speakers; train, dev and test need one each")
    dealt = {0: "test", 1: "dev"}
    return {s: dealt.get(place % EVERY, "train") for place, s in enumerate(sorted(own))}
