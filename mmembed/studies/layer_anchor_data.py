"""Two corpora by one encoder, one labelled and the other not: clips and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.batch import UNLABELLED, Batch, Padded
from mmembed.data.sampler import derive_seed
from mmembed.errors import UsageError
from mmembed.metrics.similarity import covariance_similarity, layer_similarity
from mmembed.studies.embeddings_data import read_folder
from mmembed.studies.feature_tensors import Standardise
from mmembed.studies.groups import ManifestItems, group_items
from mmembed.studies.scoring import Indices
from mmembed.studies.splits import deal, hold_out

HELD_OUT: Final = 0.3  # of the training speakers, to choose epochs by; of six one is too few
VARIES: Final = 1e-4  # a layer that varies less, of a stream that no clip has, is not read


@dataclass(frozen=True)
class LayerAnchorClips(ManifestItems):
    """Embeddings of some clips.

    Attributes:
        speakers: (N,) who speaks, or what else keeps clips of both corpora together.
        vectors: (N, L, W).
        emotion: (N,) class numbers, `UNLABELLED` where they are hidden.
        language: (N,) 0 = source, 1 = target.
    """

    speakers: NDArray[np.str_]
    vectors: Tensor
    emotion: Tensor
    language: Tensor

    def __add__(self, others: LayerAnchorClips) -> LayerAnchorClips:
        return LayerAnchorClips(
            self.rows + others.rows,
            np.concatenate((self.speakers, others.speakers)),
            torch.cat((self.vectors, others.vectors)),
            torch.cat((self.emotion, others.emotion)),
            torch.cat((self.language, others.language)),
        )

    def in_language(self, language: int) -> LayerAnchorClips:
        """Those of the source (0) or of the target (1)."""
        return self.where(self.language == language)

    def split(self, speakers: Sequence[str]) -> tuple[LayerAnchorClips, LayerAnchorClips]:
        """The clips of all other speakers, and of these."""
        named = np.isin(self.speakers, speakers)
        return self.where(~named), self.where(named)

    def standardised(self, by: Standardise) -> LayerAnchorClips:
        """The same with standardised vectors."""
        return replace(self, vectors=by(self.vectors))

    def batch(self) -> Batch:
        """All of them."""
        lengths = torch.full((len(self),), self.vectors.shape[1], dtype=torch.int64)
        return Batch(
            self.keys,
            {"embedding": Padded(self.vectors, lengths)},
            {"emotion": self.emotion},
            {"language": self.language},
        )


@dataclass(frozen=True)
class Fold:
    """Standardised clips of one fold.

    Attributes:
        train: labelled source, then target without labels.
        dev: of source speakers held out.
        oracle: split -> the target clips of `train` with labels, some speakers held out for dev.
        test: target clips of speakers that occur nowhere above.
        rows: of `test` among all target clips.
        similarity: (L, L) of source and target layers in `train`.
    """

    train: LayerAnchorClips
    dev: LayerAnchorClips
    oracle: Mapping[str, LayerAnchorClips]
    test: LayerAnchorClips
    rows: Indices
    similarity: NDArray[np.float64]


def read_corpora(
    source: str, target: str, classes: Sequence[str]
) -> tuple[tuple[str, ...], LayerAnchorClips, LayerAnchorClips]:
    """Names of the layers that vary, and the clips of both folders in these layers.

    Raises:
        UsageError: a folder is not given, is of another encoder, lacks a class, or both hold a key.
    """
    for name, folder in {"source": source, "target": target}.items():
        if not folder:
            raise UsageError(f"no {name}: give --{name} DIR, a folder of embedding shards")
    read = [
        read_folder(Path(folder), lambda row: row.labels.category in classes)
        for folder in (source, target)
    ]
    if not read[0].encoder or read[0].encoder != read[1].encoder:
        raise UsageError(f"{source} and {target}: not embeddings by one encoder")
    if read[0].layers != read[1].layers:
        raise UsageError(f"{source} and {target}: hold different layers; extract them alike")
    for folder, clips in zip((source, target), read, strict=True):
        if absent := [name for name in classes if name not in clips.categories]:
            raise UsageError(f"{folder}: no clip of class {', '.join(absent)}")
    rows = [row for clips in read for row in clips.utterances]
    vectors = [torch.stack([*clips.steps[""]]) for clips in read]
    varies = torch.stack([each.std(0).amax(1) > VARIES for each in vectors]).all(0)
    both = LayerAnchorClips(
        tuple(rows),
        np.array(group_items(rows).names),
        torch.cat(vectors)[:, varies],
        torch.tensor([classes.index(row.labels.category or "") for row in rows]),
        torch.arange(2).repeat_interleave(torch.tensor([*map(len, read)])),
    )
    layers = np.array(read[0].layers)[varies.numpy()]
    return tuple(layers.tolist()), both.in_language(0), both.in_language(1)


def make_folds(
    source: LayerAnchorClips,
    target: LayerAnchorClips,
    count: int,
    standardise: Literal["each", "both"],
) -> list[Fold]:
    """The same for the same clips; see the study.

    Raises:
        UsageError: too few speakers, or a speaker or clip that is in both corpora.
    """
    source_speakers, target_speakers = _shuffled(source), _shuffled(target)
    if both := sorted(set(source_speakers) & set(target_speakers)):
        raise UsageError(f"--target: {target.groups.kind} {both[0]} is in the source as well")
    if twice := {*source.keys} & {*target.keys}:
        raise UsageError(f"--target: clip {min(twice)} is in the source as well")
    if len(source_speakers) < 2:
        raise UsageError(
            f"--source: has one {source.groups.kind}; another one is needed to choose epochs by"
        )
    number = len(target_speakers)
    if count < 2 or number < count or number - -(-number // count) < 2:
        raise UsageError(
            f"--folds {count}: each needs a {target.groups.kind}, and two others to learn from; "
            f"the target has {number}"
        )
    labelled_source, dev = source.split(hold_out(source_speakers, HELD_OUT))
    folds = []
    for tested in deal(target_speakers, count):
        adapt, test = target.split(tested)
        vectors = [labelled_source.vectors, adapt.vectors]
        if standardise == "both":
            vectors = [torch.cat(vectors)] * 2
        by = [Standardise.by(one, floor=1e-3) for one in vectors]
        of_source, others = labelled_source.standardised(by[0]), adapt.standardised(by[1])
        hidden = torch.full_like(others.emotion, UNLABELLED)
        train = of_source + replace(others, emotion=hidden)
        adapted = [speaker for speaker in target_speakers if speaker not in tested]
        labelled, chooses = others.split(hold_out(adapted, HELD_OUT))
        # An epoch is as many steps as the others'.
        repeated = labelled.take(np.resize(np.arange(len(labelled)), len(train)))
        folds.append(
            Fold(
                train,
                dev.standardised(by[0]),
                {"train": repeated, "dev": chooses},
                test.standardised(by[1]),
                np.flatnonzero(np.isin(target.speakers, tested)),
                layer_similarity(of_source.vectors, others.vectors, covariance_similarity),
            )
        )
    return folds


def _shuffled(clips: LayerAnchorClips) -> list[str]:
    """The speakers in an order that tells nothing: corpora number men odd and women even."""
    names = sorted(set(clips.speakers.tolist()))
    order = np.random.default_rng(derive_seed("speakers", len(names))).permutation(len(names))
    return [names[place] for place in order]
