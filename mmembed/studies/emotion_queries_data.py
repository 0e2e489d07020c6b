"""Labelled clips of several corpora as a frozen encoder sees them, split by speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from mmembed.data.manifest.utterance import EMOTIONS, Labels, Utterance
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import count_groups
from mmembed.studies.embeddings_data import (
    NAN,
    EmbeddedClips,
    Part,
    read_embeddings,
    same_encoder,
    subset_folders,
)
from mmembed.studies.groups import ManifestItems, group_items
from mmembed.studies.splits import SPLITS, deal

ADJECTIVES: Final = {
    "anger": "angry", "disgust": "disgusted", "fear": "fearful", "joy": "happy",
    "sadness": "sad", "surprise": "surprised",
}  # fmt: skip
"""What corpora call an emotion -> the word for who feels it."""

EVERY: Final = 5  # of so many speakers one is for test and one for dev


@dataclass(frozen=True)
class EmotionQueryClips(ManifestItems):
    """Labelled clips.

    Attributes:
        corpora: N names.
        steps: N tensors (T, D): the encoder's frames, or its layers.
        emotions: (N, E) 1 = present, 0 = absent, NaN = not labelled by the corpus.
    """

    corpora: tuple[str, ...]
    steps: tuple[Tensor, ...]
    emotions: Tensor


def read_clips(
    folders: Sequence[str], streams: str, reads: Part
) -> tuple[dict[str, EmotionQueryClips], tuple[str, ...], str]:
    """Clips of "train", "dev" and "test", the names of their E emotions, and the encoder's SHA-256.

    A corpus is named as its folder. Where its own splits keep speakers apart they are taken;
    else its speakers are dealt out in alphabetical order: of five the first is for test, the second
    for dev. Where a speaker is not known it is the dialogue that is kept together, else each clip
    stands for itself.

    Args:
        folders: of embedding shards, one a corpus.
        streams: the stream subset that is read.
        reads: "layers" or "frames".

    Raises:
        UsageError: no folder, one without labels or what is to be read; too few speakers; a key
            that two corpora have; or the folders are of different encoders.
    """
    if not folders:
        raise UsageError("no data: give --embeddings DIR [DIR ...], made by extract")
    read = {folder: _read(folder, streams, reads) for folder in folders}
    encoder = same_encoder({folder: clips.encoder for folder, clips in read.items()})
    first: dict[str, str] = {}
    for folder, found in read.items():
        for key in found.keys:
            if key in first:
                raise UsageError(f"{first[key]} and {folder}: both hold {key}; name each clip once")
            first[key] = folder
    rows = [row for found in read.values() for row in found.utterances]
    groups = group_items(rows)
    splits: list[str] = []
    for folder, corpus in read.items():
        names = groups.names[len(splits) : len(splits) + len(corpus)]
        splits += _splits(folder, names, corpus.splits.tolist(), groups.kind)
    labels = [one for clips in read.values() for one in _emotion_labels(clips.utterances)]
    emotions = tuple(sorted({name for one in labels for name in one}))
    clips = EmotionQueryClips(
        tuple(rows),
        tuple(Path(folder).name for folder, found in read.items() for _ in found.keys),
        tuple(steps for found in read.values() for steps in found.steps[streams]),
        torch.tensor([[one.get(name, NAN) for name in emotions] for one in labels]),
    )
    parts = {name: clips.where(np.array(splits) == name) for name in SPLITS}
    return parts, emotions, encoder


def _read(folder: str, streams: str, reads: Part) -> EmbeddedClips:
    """The labelled clips of a corpus."""
    there = subset_folders(Path(folder))
    if streams not in there:
        raise UsageError(f"{folder}: holds no embeddings of {streams}, but of {', '.join(there)}")
    clips = read_embeddings(
        {streams: there[streams]}, lambda row: bool(_emotions(row.labels)), part=reads
    )
    if not len(clips):
        raise UsageError(f"{folder}: no clip has a label of emotion")
    return clips


def _emotions(labels: Labels) -> dict[str, float] | str:
    """Labelled emotion -> present (1) or absent (0); where there is none a category, "" = none."""
    intensities = zip(EMOTIONS, labels.intensities, strict=True)
    labelled = {_word(name): float(value > 0) for name, value in intensities if value == value}
    return labelled or _word(labels.category or "")


def _word(name: str) -> str:
    return ADJECTIVES.get(name, name)


def _emotion_labels(rows: Sequence[Utterance]) -> list[dict[str, float]]:
    """Of each clip of a corpus what is present (1) and absent (0): a category is one of all."""
    emotions = [_emotions(row.labels) for row in rows]
    categories = {name for name in emotions if isinstance(name, str)}
    return [
        {name: float(name == one) for name in categories} if isinstance(one, str) else one
        for one in emotions
    ]


def _splits(folder: str, groups: Sequence[str], splits: Sequence[str], kind: str) -> list[str]:
    """The split of each clip of a corpus; `heldout` goes with the training of its speaker."""
    own: dict[str, set[str]] = {}
    for group, split in zip(groups, splits, strict=True):
        own.setdefault(group, set()).add("train" if split == "heldout" else split)
    if set().union(*own.values()) == set(SPLITS) and all(len(found) == 1 for found in own.values()):
        return [min(own[group]) for group in groups]
    if len(own) < 3:
        count = count_groups(len(own), kind)
        raise UsageError(f"{folder}: {count}; train, dev and test need one each")
    test, dev, *_ = deal(sorted(own), EVERY)
    return ["test" if n in test else "dev" if n in dev else "train" for n in groups]
