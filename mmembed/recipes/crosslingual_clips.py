"""Two corpora by one encoder, emotions of one known and of the other hidden: clips and folds."""

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
from mmembed.data.sampling import derive_seed
from mmembed.data.shards import ShardSet
from mmembed.errors import CorruptError, UsageError
from mmembed.recipes.scoring import Indices
from mmembed.similarity import covariance_similarity, layer_similarity

HELD_OUT: Final = 0.3  # of the training speakers, to choose epochs by; of six one is too few
VARIES: Final = 1e-4  # a layer that varies less, of a stream that no clip has, is not read


@dataclass(frozen=True)
class Clips:
    """Embeddings of some clips.

    Attributes:
        keys: N of them.
        speakers: (N,).
        vectors: (N, L, W).
        emotion: (N,) class numbers, `UNLABELLED` where they are hidden.
        language: (N,) 0 = source, 1 = target.
    """

    keys: tuple[str, ...]
    speakers: NDArray[np.str_]
    vectors: Tensor
    emotion: Tensor
    language: Tensor

    def __len__(self) -> int:
        return len(self.keys)

    def __add__(self, others: Clips) -> Clips:
        return Clips(
            self.keys + others.keys,
            np.concatenate((self.speakers, others.speakers)),
            torch.cat((self.vectors, others.vectors)),
            torch.cat((self.emotion, others.emotion)),
            torch.cat((self.language, others.language)),
        )

    def take(self, rows: Sequence[int] | Indices) -> Clips:
        """Some of them, in this order."""
        index = torch.as_tensor(rows)
        return Clips(
            tuple(self.keys[row] for row in index.tolist()),
            self.speakers[index.numpy()],
            self.vectors[index],
            self.emotion[index],
            self.language[index],
        )

    def in_language(self, language: int) -> Clips:
        """Those of the source (0) or of the target (1)."""
        return self.take(np.flatnonzero(self.language.numpy() == language))

    def split(self, speakers: Sequence[str]) -> tuple[Clips, Clips]:
        """The clips of all other speakers, and of these."""
        named = np.isin(self.speakers, speakers)
        return self.take(np.flatnonzero(~named)), self.take(np.flatnonzero(named))

    def hidden(self) -> Clips:
        """The same without emotions."""
        return replace(self, emotion=torch.full_like(self.emotion, UNLABELLED))

    def standardised(self, by: Tensor) -> Clips:
        """The same in deviations from the mean of other vectors (N', L, W)."""
        scale = by.std(0, unbiased=False).clamp(min=1e-3)
        return replace(self, vectors=(self.vectors - by.mean(0)) / scale)

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

    train: Clips
    dev: Clips
    oracle: Mapping[str, Clips]
    test: Clips
    rows: Indices
    similarity: NDArray[np.float64]


def read_corpora(
    source: str, target: str, classes: Sequence[str]
) -> tuple[tuple[str, ...], Clips, Clips]:
    """Names of the layers that vary, and the clips of both folders in these layers.

    Raises:
        UsageError: a folder is not given, is of another encoder, lacks a class or a speaker's name.
    """
    for name, folder in {"source": source, "target": target}.items():
        if not folder:
            raise UsageError(f"no {name}: give --{name} DIR, a folder of embedding shards")
    opened = [ShardSet(Path(folder)) for folder in (source, target)]
    encoders = {shards.manifest.get("encoder_sha256") for shards in opened}
    if None in encoders or len(encoders) > 1:
        raise UsageError(f"{source} and {target}: not embeddings by one encoder")
    clips = [_read(shards, classes, number) for number, shards in enumerate(opened)]
    varies = torch.stack([c.vectors.std(0).amax(1) > VARIES for c in clips]).all(0)
    layers = np.array(opened[0].manifest["layers"])[varies.numpy()]
    of_source, of_target = (replace(c, vectors=c.vectors[:, varies]) for c in clips)
    return tuple(layers.tolist()), of_source, of_target


def _read(shards: ShardSet, classes: Sequence[str], language: int) -> Clips:
    """All clips of the classes."""
    keys, speakers, vectors, emotion = [], [], [], []
    for index in range(len(shards)):
        record = shards.read(index, ["layers.npy", "json"])
        layers, described = record.members.get("layers.npy"), record.members["json"]
        if not isinstance(layers, np.ndarray) or not isinstance(described, dict):
            raise CorruptError(f"{shards.folder}: {record.key} holds no layers.npy; extract again")
        category = (described["labels"] or {}).get("category")
        if category not in classes:
            continue
        if described["speaker"] is None:
            raise UsageError(f"{shards.folder}: the speaker of {record.key} is not known")
        keys.append(record.key)
        speakers.append(described["speaker"])
        vectors.append(torch.from_numpy(layers.astype(np.float32)))
        emotion.append(classes.index(category))
    absent = [name for number, name in enumerate(classes) if number not in emotion]
    if absent:
        raise UsageError(f"{shards.folder}: no clip of class {', '.join(absent)}")
    return Clips(
        tuple(keys),
        np.array(speakers),
        torch.stack(vectors),
        torch.tensor(emotion),
        torch.full((len(keys),), language),
    )


def make_folds(
    source: Clips, target: Clips, count: int, standardise: Literal["each", "both"]
) -> list[Fold]:
    """The same for the same clips; see the study.

    Raises:
        UsageError: too few speakers, or one who is in both corpora.
    """
    talkers, actors = _shuffled(source), _shuffled(target)
    if both := sorted(set(talkers) & set(actors)):
        raise UsageError(f"--target: speaker {both[0]} is in the source as well")
    if len(talkers) < 2:
        raise UsageError("--source: has one speaker; another one is needed to choose epochs by")
    if count < 2 or len(actors) < count or len(actors) - -(-len(actors) // count) < 2:
        raise UsageError(
            f"--folds {count}: each needs a speaker, and two others to learn from; the target has "
            f"{len(actors)}"
        )
    known, dev = source.split(_held_out(talkers))
    folds = []
    for tested in (actors[number::count] for number in range(count)):
        adapt, test = target.split(tested)
        by = [known.vectors, adapt.vectors]
        if standardise == "both":
            by = [torch.cat(by)] * 2
        of_source, others = known.standardised(by[0]), adapt.standardised(by[1])
        train = of_source + others.hidden()
        labelled, chooses = others.split(_held_out([a for a in actors if a not in tested]))
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


def _shuffled(clips: Clips) -> list[str]:
    """The speakers in an order that tells nothing: corpora number men odd and women even."""
    names = sorted(set(clips.speakers.tolist()))
    order = np.random.default_rng(derive_seed("speakers", len(names))).permutation(len(names))
    return [names[place] for place in order]


def _held_out(speakers: Sequence[str]) -> Sequence[str]:
    return speakers[: max(1, round(HELD_OUT * len(speakers)))]
