"""Layer anchoring between two corpora: emotions of one language known, of the other hidden.

Every target speaker is tested, by methods that have not met them in any way: target speakers are
dealt into folds, and for each fold the methods learn from the labelled source and from the clips of
all other target speakers, without labels. A row of the table puts the answers of all folds together.
The oracle alone sees emotions of the target, again of the other folds' speakers only. Means,
deviations and the similarity of layers, too, are of training clips. What is known of the target
beforehand is that its clips are of the given classes.

Epochs are chosen by the cross entropy of source speakers held out for it (the oracle's: of target
speakers). These cannot tell how well the languages are aligned: the weight of the alignment and the
way to standardise stay fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from mmembed.batch import UNLABELLED, Batch, Padded
from mmembed.contract import Method
from mmembed.data.sampling import derive_seed
from mmembed.data.shards import ShardSet
from mmembed.errors import CorruptError, UsageError
from mmembed.methods.layer_anchor import LayerAnchor, LayerAnchorConfig
from mmembed.recipes.scoring import MEASURES, Array, Held, Indices
from mmembed.recipes.study import FinetuneLoop, FinetuneRun, Study, Trained
from mmembed.similarity import covariance_similarity, layer_similarity, most_similar_group
from mmembed.training.optim import OptimConfig

HELD_OUT: Final = 0.3  # of the training speakers, to choose epochs by; of six one is too few
STRENGTHS: Final = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # of the logistic regression, chosen on dev
VARIES: Final = 1e-4  # a layer that varies less, of a stream that no clip has, is not read
ORACLE: Final = "oracle"
UNALIGNED: Final = ", not aligned"


@dataclass(frozen=True)
class LayerAnchorRun(FinetuneRun):
    """One run; everything that decides its result.

    Attributes:
        source: folder of embedding shards whose emotions are learned.
        target: another, by the same encoder, whose emotions are hidden.
        classes: emotions that both have; clips of others are left out.
        standardise: vectors by mean and deviation of "each" corpus, or of "both" together.
        folds: parts of the target speakers.
        group: adjacent layers that are anchored together.
        anchors: names of layers; given, they are anchored in one more variant.
        hidden: width of the projections.
        dropout: in front of the classifier.
        coral_weight: of the alignment.
    """

    name: str = "layer_anchor"
    source: str = ""
    target: str = ""
    classes: tuple[str, ...] = ("angry", "happy", "neutral", "sad")
    standardise: Literal["each", "both"] = "each"
    folds: int = 3
    group: int = 3
    anchors: tuple[str, ...] = ()
    hidden: int = 64
    dropout: float = 0.3
    coral_weight: float = 100.0
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=1e-3, weight_decay=0.1))
    loop: FinetuneLoop = field(
        default_factory=lambda: FinetuneLoop(epochs=20, batch=128, seeds=(0, 1, 2, 3, 4))
    )


def layer_anchor() -> LayerAnchorRun:
    """Emotions of a language without labels: source only, layers anchored, the oracle."""
    return LayerAnchorRun()


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
        oracle: target clips with labels, split -> clips: those of `train`, of which some speakers
            are held out for dev; repeated so that an epoch has as many steps as the others'.
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


class LayerAnchorStudy(Study):
    """Variants: WAY/FOLD; of a way, such as "group", the table has one row for all folds."""

    def __init__(self, run: LayerAnchorRun) -> None:
        self.run: LayerAnchorRun = run
        self._layers, source, target = read_corpora(run)
        unknown = [name for name in run.anchors if name not in self._layers]
        if unknown:
            known = ", ".join(self._layers)
            raise UsageError(f"--anchors: no layer {unknown[0]!r} that varies; there are {known}")
        if not 1 <= run.group <= len(self._layers):
            raise UsageError(f"--group {run.group}: there are {len(self._layers)} layers")
        self._target = target
        self._folds = _make_folds(run, source, target)
        self._anchors = [most_similar_group(fold.similarity, run.group) for fold in self._folds]
        chosen = ("chosen layers",) if run.anchors else ()
        anchored = ("last layer", "group", *chosen)
        pairs = [way for name in anchored for way in (name, name + UNALIGNED)]
        self._ways = ("source only", *pairs, ORACLE)
        self.variants = tuple(f"{way}/{fold}" for way in self._ways for fold in range(run.folds))
        self.tests = {
            "target": Held(
                "classes",
                "uar",
                target.keys,
                tuple(target.speakers.tolist()),
                target.emotion.numpy(),
                source.emotion.numpy(),
                run.classes,
            )
        }

    def size(self, variant: str, split: str) -> int:
        """Clips of both languages in "train", of the source in "dev"; of the target the oracle's."""
        return len(self._clips(variant, split))

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their vectors, languages, and what is known of their emotions."""
        return self._clips(variant, split).take(rows).batch()

    def method(self, variant: str) -> Method:
        """Anchors alone are read, by the twin without alignment too; else all layers are."""
        anchors = self._anchors_of(variant)
        return LayerAnchor(
            LayerAnchorConfig(
                layers=len(self._layers),
                width=self._target.vectors.shape[2],
                num_classes=len(self.run.classes),
                reads=anchors,
                anchors=() if UNALIGNED in variant else anchors,
                hidden=self.run.hidden,
                dropout=self.run.dropout,
                coral_weight=self.run.coral_weight,
            )
        )

    @torch.no_grad()
    def answers(self, variant: str, test: str, method: Method) -> Array:
        """(N, C) logits of the fold's test clips among all of the target; 0 for the others."""
        fold = self._fold(variant)
        logits = np.zeros((len(self._target), len(self.run.classes)), np.float32)
        logits[fold.rows] = method.predict(fold.test.batch())["emotion"].numpy()
        return logits

    def baselines(self, test: str) -> dict[str, Array]:
        """Logistic regressions on standardised vectors of the source, strength chosen on dev."""
        found = {}
        for name, layers in {"last layer": slice(-1, None), "all layers": slice(None)}.items():
            classes = np.zeros(len(self._target), np.int64)
            for fold in self._folds:
                classes[fold.rows] = _regress(fold, layers)
            found[f"logistic regression, {name}"] = np.eye(len(self.run.classes))[classes]
        return found

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """How alike layers are and which were anchored; both losses at the end, dev scores."""
        return {
            "layer_similarity": {
                "measure": "similarity of covariances",
                "source": Path(self.run.source).name,
                "target": Path(self.run.target).name,
                "layers": list(self._layers),
                "similarity": np.mean([fold.similarity for fold in self._folds], 0).tolist(),
                "groups": [[self._layers[layer] for layer in group] for group in self._anchors],
            },
            "training": {way: self._training(way, trained) for way in self._ways},
        }

    def _score(self, out: Path, test: str, variants: Mapping[str, Array]) -> dict[str, Any]:
        """The folds of a way are one row."""
        whole = {
            way: np.sum([variants[f"{way}/{fold}"] for fold in range(self.run.folds)], 0)
            for way in self._ways
        }
        return super()._score(out, test, whole)

    @torch.no_grad()
    def _training(self, way: str, trained: Trained) -> dict[str, float]:
        """Means over folds and seeds, without dropout: losses times weights, and dev."""
        found: dict[str, list[float]] = {}
        for variant in (f"{way}/{fold}" for fold in range(self.run.folds)):
            train, dev = (self._clips(variant, split).batch() for split in ("train", "dev"))
            truth = self._clips(variant, "dev").emotion.numpy()
            for method in trained(variant):
                for term, value in method.eval()(train).items():
                    mean = method.weights[term] * float(value) / train.count(method.terms[term])
                    found.setdefault(f"{term} loss", []).append(mean)
                loss = float(method(dev)["emotion"]) / len(truth)
                found.setdefault("dev emotion loss", []).append(loss)
                answer = method.predict(dev)["emotion"].numpy()
                found.setdefault("dev uar", []).append(MEASURES["classes"]["uar"](truth, answer))
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _fold(self, variant: str) -> Fold:
        return self._folds[int(variant.rpartition("/")[2])]

    def _clips(self, variant: str, split: str) -> Clips:
        fold = self._fold(variant)
        if variant.startswith(ORACLE):
            return fold.oracle[split]
        return fold.train if split == "train" else fold.dev

    def _anchors_of(self, variant: str) -> tuple[int, ...]:
        way, _, fold = variant.replace(UNALIGNED, "").rpartition("/")
        if way == "group":
            return self._anchors[int(fold)]
        if way == "chosen layers":
            return tuple(self._layers.index(name) for name in self.run.anchors)
        return (-1,) if way == "last layer" else ()


def _make_folds(run: LayerAnchorRun, source: Clips, target: Clips) -> list[Fold]:
    """The same for every run on the same clips.

    Raises:
        UsageError: too few speakers, or one of both corpora.
    """
    talkers, actors = _shuffled(source), _shuffled(target)
    both = sorted(set(talkers) & set(actors))
    if both:
        raise UsageError(f"speaker {both[0]} is in {run.source} and in {run.target}")
    if len(talkers) < 2:
        raise UsageError(f"{run.source}: one speaker; another one is needed for dev")
    if run.folds < 2 or len(actors) - -(-len(actors) // run.folds) < 2:
        raise UsageError(
            f"--folds {run.folds}: beside each fold at least two of the {len(actors)} speakers of "
            f"{run.target} are needed"
        )
    known, dev = source.split(_held_out(talkers))
    folds = []
    for tested in (actors[number :: run.folds] for number in range(run.folds)):
        adapt, test = target.split(tested)
        by = [known.vectors, adapt.vectors]
        if run.standardise == "both":
            by = [torch.cat(by)] * 2
        of_source, others = known.standardised(by[0]), adapt.standardised(by[1])
        train = of_source + others.hidden()
        labelled, chooses = others.split(_held_out([a for a in actors if a not in tested]))
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


def _regress(fold: Fold, layers: slice) -> NDArray[np.int64]:
    """Classes of the fold's test clips."""

    def columns(clips: Clips) -> NDArray[np.float32]:
        wide: NDArray[np.float32] = clips.vectors[:, layers].flatten(1).numpy()
        return wide

    source = fold.train.take(np.flatnonzero(fold.train.language.numpy() == 0))
    fitted = [
        LogisticRegression(C=strength, max_iter=2000).fit(columns(source), source.emotion.numpy())
        for strength in STRENGTHS
    ]
    vectors, truth = columns(fold.dev), fold.dev.emotion.numpy()
    best = max(fitted, key=lambda model: float(model.score(vectors, truth)))
    classes: NDArray[np.int64] = best.predict(columns(fold.test))
    return classes


def read_corpora(run: LayerAnchorRun) -> tuple[tuple[str, ...], Clips, Clips]:
    """Names of the layers that vary, and the source's and the target's clips in these layers.

    Raises:
        UsageError: a folder is not given, was made by another encoder, or lacks a class.
    """
    for name in ("source", "target"):
        if not getattr(run, name):
            raise UsageError(f"no {name}: give --{name} DIR, a folder of embedding shards")
    opened = [ShardSet(Path(folder)) for folder in (run.source, run.target)]
    encoders = [shards.manifest.get("encoder_sha256") for shards in opened]
    if None in encoders or encoders[0] != encoders[1]:
        raise UsageError(f"{run.source} and {run.target}: not embeddings by one encoder")
    source, target = (_read(s, run.classes, number) for number, s in enumerate(opened))
    varying = torch.stack([c.vectors.std(0).amax(1) > VARIES for c in (source, target)]).all(0)
    names = tuple(name for name, kept in zip(opened[0].manifest["layers"], varying, strict=True) if kept)  # fmt: skip
    source, target = (replace(c, vectors=c.vectors[:, varying]) for c in (source, target))
    return names, source, target


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
        vectors.append(torch.from_numpy(layers))
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
