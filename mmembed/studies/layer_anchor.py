"""Layer anchoring between two corpora: one language is labelled with emotions, the other not.

Every target speaker is tested, by methods that have not met them in any way: target speakers are
dealt into folds, and for each fold the methods learn from the labelled source and from clips of all
other target speakers, without labels. A row of the table joins the predictions of all folds.
The oracle learns from these other target speakers with their labels, and from nothing else. Means,
standard deviations and the similarity of layers are of training clips, too. All that is known of
the target beforehand is that its clips are of the given classes.

Epochs are chosen by the cross entropy of source speakers held out for it (the oracle's: of target
speakers). They can tell what an alignment costs, and nothing of what it gains.

Anchors alone are read: where a classifier may read other layers as well, it does, and the anchored
ones are aligned by shrinking them. So each anchored way has a twin that reads the same layers and
aligns nothing; "source only" and the oracle read all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.batch import Batch
from mmembed.data.shards.layout import ShardSet
from mmembed.embedder import Embedder
from mmembed.errors import UsageError
from mmembed.method import Method
from mmembed.methods.layer_anchor import LayerAnchor, LayerAnchorConfig
from mmembed.metrics.similarity import most_similar_group
from mmembed.settings.finetune import LayerAnchorRun
from mmembed.studies.baselines import logistic_regression
from mmembed.studies.layer_anchor_data import Fold, LayerAnchorClips, make_folds, read_corpora
from mmembed.studies.layer_anchor_vowels import Vowels, read_vowels, vowel_similarity
from mmembed.studies.scoring import METRICS, Array, TestSet
from mmembed.studies.study import Study, Trained

ORACLE: Final = "oracle"
UNALIGNED: Final = ", not aligned"
BY_VOWELS: Final = "group by vowels"


class LayerAnchorStudy(Study):
    """Variants: WAY/FOLD; of a way, such as "group", the table has one row for all folds."""

    def __init__(self, run: LayerAnchorRun) -> None:
        self.run: LayerAnchorRun = run
        self._layers, source, target = read_corpora(run.source, run.target, run.classes)
        if unknown := [name for name in run.anchors if name not in self._layers]:
            known = ", ".join(self._layers)
            raise UsageError(f"--anchors: no layer {unknown[0]!r} that varies; there are {known}")
        if not 1 <= run.group <= len(self._layers):
            raise UsageError(f"--group {run.group}: there are {len(self._layers)} layers")
        self._target = target
        self._folds = make_folds(source, target, run.folds, run.standardise)
        self.notes = self._missing_classes()
        self._similarity = {"group": [fold.similarity for fold in self._folds]}
        self._error_rates: dict[str, float] = {}
        if run.encoder:
            self._similarity[BY_VOWELS] = self._compare_vowels(source)
        self._anchors: dict[str, list[tuple[int, ...]]] = {"last layer": [(-1,)] * run.folds}
        for way, folds in self._similarity.items():
            self._anchors[way] = [most_similar_group(each, run.group) for each in folds]
        if run.anchors:
            chosen = tuple(self._layers.index(name) for name in run.anchors)
            self._anchors["chosen layers"] = [chosen] * run.folds
        pairs = [way for name in self._anchors for way in (name, name + UNALIGNED)]
        self._ways = ("source only", *pairs, ORACLE)
        self.oracles = frozenset({ORACLE})
        self.variants = tuple(f"{way}/{fold}" for way in self._ways for fold in range(run.folds))
        self.tests = {
            "target": TestSet(
                "classes",
                "uar",
                target.keys,
                tuple(target.speakers.tolist()),
                target.emotion.numpy(),
                source.emotion.numpy(),
                run.classes,
                grouping=target.groups.kind,
            )
        }

    def _missing_classes(self) -> list[str]:
        """What the source teaches nothing of, once speakers are held out to choose epochs by.

        Raises:
            UsageError: it teaches one class alone.
        """
        taught = {*self._folds[0].train.in_language(0).emotion.tolist()}
        if len(taught) < 2:
            raise UsageError(
                f"{self.run.source}: all training clips are of class "
                f"{self.run.classes[taught.pop()]}, once speakers are held out for dev"
            )
        return [
            f"no training clip of the source is of class {name}, once speakers are held out for dev"
            for number, name in enumerate(self.run.classes)
            if number not in taught
        ]

    def size(self, variant: str, split: str) -> int:
        """Clips of both languages in "train", of the source in "dev"; the oracle has the target."""
        return len(self._clips(variant, split))

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their vectors, languages, and emotions where they are not hidden."""
        return self._clips(variant, split).take(rows).batch()

    def method(self, variant: str) -> Method:
        """Anchors alone are read, by the twin without alignment too; else all layers are."""
        way, _, fold = variant.replace(UNALIGNED, "").rpartition("/")
        anchors = self._anchors[way][int(fold)] if way in self._anchors else ()
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
    def predict(self, variant: str, test: str, method: Method) -> Array:
        """(N, C) logits of the fold's test clips among all of the target; 0 for the others."""
        fold = self._fold(variant)
        logits = np.zeros((len(self._target), len(self.run.classes)), np.float32)
        logits[fold.rows] = method.predict(fold.test.batch())["emotion"].numpy()
        return logits

    def baselines(self, test: str) -> dict[str, Array]:
        """Logistic regressions on standardised vectors of the source, strength chosen on dev."""
        predicted = {}
        for name, layers in {"last layer": slice(-1, None), "all layers": slice(None)}.items():
            classes = np.zeros(len(self._target), np.int64)
            for fold in self._folds:
                classes[fold.rows] = _regress(fold, layers)
            predicted[f"logistic regression, {name}"] = np.eye(len(self.run.classes))[classes]
        return predicted

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """Similarity of layers, those that were anchored, both losses at the end, dev scores."""
        extras = {
            "layer_similarity": self._similarity_of("group", "similarity of covariances"),
            "training": {way: self._training(way, trained) for way in self._ways},
        }
        if BY_VOWELS in self._anchors:
            extras["vowel_similarity"] = self._similarity_of(BY_VOWELS, "linear CKA of vowels")
            extras["letter_error_rate"] = self._error_rates
        return extras

    def _similarity_of(self, way: str, metric: str) -> dict[str, Any]:
        groups = self._anchors[way]
        return {
            "metric": metric,
            "source": _short(self.run.source),
            "target": _short(self.run.target),
            "layers": list(self._layers),
            "similarity": np.mean(self._similarity[way], 0).tolist(),
            "groups": [[self._layers[layer] for layer in group] for group in groups],
        }

    def _compare_vowels(self, source: LayerAnchorClips) -> list[NDArray[np.float64]]:
        """(L, L) of each fold, of its training clips in both languages."""
        embedder = Embedder.from_pretrained(self.run.encoder, recogniser=self.run.recogniser)
        both: list[Vowels] = []
        run = self.run
        for name, clips, embeddings, folder in (
            ("source", source, run.source, run.source_clips),
            ("target", self._target, run.target, run.target_clips),
        ):
            if not folder:
                raise UsageError(f"--encoder: give --{name}-clips DIR too, to find vowels in")
            made = ShardSet(Path(embeddings)).manifest
            if made.get("encoder_sha256") != embedder.sha256:
                raise UsageError(f"{embeddings}: not embeddings by {self.run.encoder}")
            vowels = read_vowels(embedder, folder, made["streams"], self._layers, clips.keys)
            self._error_rates[name] = vowels.error_rate
            both.append(vowels)
        trained = ([fold.train.in_language(side).keys for side in (0, 1)] for fold in self._folds)
        of_source, of_target = both
        return [vowel_similarity(of_source, of_target, *keys) for keys in trained]

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
        figures: dict[str, list[float]] = {}
        for variant in (f"{way}/{fold}" for fold in range(self.run.folds)):
            train, dev = (self._clips(variant, split).batch() for split in ("train", "dev"))
            truth = self._clips(variant, "dev").emotion.numpy()
            for method in trained(variant):
                for term, value in method.eval()(train).items():
                    mean = method.weights[term] * float(value) / train.count(method.terms[term])
                    figures.setdefault(f"{term} loss", []).append(mean)
                loss = float(method(dev)["emotion"]) / len(truth)
                figures.setdefault("dev emotion loss", []).append(loss)
                predicted = method.predict(dev)["emotion"].numpy()
                uar = METRICS["classes"]["uar"](truth, predicted)
                figures.setdefault("dev uar", []).append(uar)
        return {name: float(np.mean(values)) for name, values in figures.items()}

    def _fold(self, variant: str) -> Fold:
        return self._folds[int(variant.rpartition("/")[2])]

    def _clips(self, variant: str, split: str) -> LayerAnchorClips:
        fold = self._fold(variant)
        if variant.startswith(ORACLE):
            return fold.oracle[split]
        return fold.train if split == "train" else fold.dev


def _short(folder: str) -> str:
    return "/".join(Path(folder).parts[-2:])  # such as emodb/audio


def _regress(fold: Fold, layers: slice) -> NDArray[np.int64]:
    """Classes of the fold's test clips."""

    def columns(clips: LayerAnchorClips) -> NDArray[np.float32]:
        return clips.vectors[:, layers].flatten(1).numpy()

    source = fold.train.in_language(0)
    model = logistic_regression(
        (columns(source), source.emotion.numpy()), (columns(fold.dev), fold.dev.emotion.numpy())
    )
    classes: NDArray[np.int64] = model.predict(columns(fold.test))
    return classes
