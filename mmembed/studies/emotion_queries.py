"""Emotion words as queries of the layers or frames of a frozen encoder, with emotions left out.

Corpora are read together, each with a label set of its own: where a corpus never labels an emotion,
the emotion is masked for its clips. One variant learns all emotions. Each other one is trained
without the clips and the word of one emotion, and tested on it. Its predictions have to beat those
for the trained emotion whose word is nearest ("nearest-seen").

Scores are areas under the ROC curve within each corpus, averaged: across corpora, recognising the
corpus would be enough to recognise the emotion. No speaker of dev or test is in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmembed.batch import Batch, Padded
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.method import Method
from mmembed.methods.emotion_queries import EmotionQueries
from mmembed.metrics.multilabel import auroc, label_auroc
from mmembed.settings.finetune import EmotionQueriesRun
from mmembed.studies.baselines import best_on_dev
from mmembed.studies.emotion_queries_data import EmotionQueryClips, read_clips
from mmembed.studies.results import TestPredictions
from mmembed.studies.scoring import Array, TestSet, finite
from mmembed.studies.study import Study, Trained, decided
from mmembed.studies.text_vectors import text_vectors
from mmembed.studies.trained_on import TrainedOn, describe

PHRASE: Final = "a person who sounds {}"  # chosen on dev
BATCH: Final = 256  # clips answered at once
STRENGTHS: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge a column, chosen on dev
ALL, WITHOUT, UNSEEN, NEAREST = "all", "without-", "unseen-", "nearest-seen"


def asking(text: str, descriptions: Sequence[str] = ()) -> str:
    """The text whose vector asks for an emotion, given its word.

    With descriptions it is that of the word; a text that none is for is a description itself.
    """
    if not descriptions:
        return PHRASE.format(text)
    return dict(one.split("=", 1) for one in descriptions).get(text, text)


class EmotionQueriesStudy(Study):
    """Variants: "all" emotions, and "without-E" for each that is left out."""

    def __init__(self, run: EmotionQueriesRun) -> None:
        if not run.backbone:
            raise UsageError("no text encoder: give --backbone, a folder or a name on the hub")
        self._splits, self.emotions, encoder = read_clips(run.embeddings, run.streams, run.reads)
        train, where = self._splits["train"], ", ".join(run.embeddings)
        for split, clips in self._splits.items():
            if not len(clips):
                raise UsageError(f"{where}: no clip of the split {split} has a label of emotion")
        for emotion in run.leave_out:
            if emotion not in self.emotions or not (train.emotions[:, self._e(emotion)] > 0).any():
                raise UsageError(
                    f"--leave-out {emotion}: no training clip shows it; the corpora label "
                    f"{', '.join(self.emotions)}"
                )
        described = [one.partition("=")[0] for one in run.descriptions if one.partition("=")[2]]
        if run.descriptions and sorted(described) != sorted(self.emotions):
            raise UsageError(
                "--descriptions: give EMOTION=DESCRIPTION for each emotion that the corpora label: "
                f"{', '.join(self.emotions)}"
            )
        asked = [asking(name, run.descriptions) for name in self.emotions]
        self.vectors = text_vectors(run.backbone, asked)
        method = replace(
            run.method,
            widths=(train.steps[0].shape[1],),
            steps=(len(train.steps[0]) if run.reads == "layers" else 1,),
            num_emotions=len(self.emotions),
            query_width=self.vectors.shape[1],
        )
        self.run: EmotionQueriesRun = replace(run, encoder=encoder, method=method)
        self.variants = (ALL, *(f"{WITHOUT}{emotion}" for emotion in run.leave_out))
        self._parts = {
            (variant, split): self._learnable(self._splits[split], variant)
            for variant in self.variants
            for split in ("train", "dev")
        }
        for (variant, split), clips in self._parts.items():
            if not len(clips):
                raise UsageError(f"{where}: the split {split} has no clip for {variant!r}")
        emotions = {"seen": self.emotions} | {f"{UNSEEN}{e}": (e,) for e in self.run.leave_out}
        self._labels = {test: self._corpus_labels(names) for test, names in emotions.items()}
        self._clips = {}
        tests = {}
        for test, labels in self._labels.items():
            truth = _truth(self._splits["test"], labels)
            labelled = ~np.isnan(truth).all(1)
            self._clips[test] = clips = self._splits["test"].where(labelled)
            groups = clips.groups
            tests[test] = TestSet(
                "labels",
                "auroc",
                clips.keys,
                groups.names,
                truth[labelled],
                _truth(self._splits["train"], labels),
                tuple(f"{corpus}: {self.emotions[e]}" for corpus, e in labels),
                grouping=groups.kind,
            )
        self.tests, self.notes = decided(tests, where)

    def trained_on(self) -> TrainedOn:
        """See `Study`."""
        train = self._splits["train"]
        corpora: dict[str, list[Utterance]] = {name: [] for name in train.corpora}
        for row, name in zip(train.rows, train.corpora, strict=True):
            corpora[name].append(row)
        data = (describe([name], rows) for name, rows in corpora.items())
        return TrainedOn(tuple(data), self.run.encoder)

    def size(self, variant: str, split: str) -> int:
        """Clips of a split that the variant may know."""
        return len(self._parts[variant, split])

    def lengths(self, variant: str) -> Sequence[int]:
        """Steps of each training clip."""
        return [len(steps) for steps in self._parts[variant, "train"].steps]

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their steps, and what is known of the emotions that the variant is trained on."""
        clips = self._parts[variant, split].take(rows)
        emotions = clips.emotions[:, self._learned(variant)]
        return Batch(
            clips.keys,
            {"embedding": Padded.stack(clips.steps)},
            {"emotions": emotions.nan_to_num()},
            {"label_mask": ~emotions.isnan()},
        )

    def method(self, variant: str) -> Method:
        """Emotion queries that know the vectors of the variant's emotions.

        What an emotion that is left out sounds like is in no mean: it would give the clips away.
        """
        learned = self._learned(variant)
        model = EmotionQueries(replace(self.run.method, num_emotions=len(learned)))
        model.ask_by(self.vectors[learned])
        steps = torch.cat(self._parts[variant, "train"].steps)
        (count,) = self.run.method.steps
        model.standardise_by("embedding", steps.view(-1, count, steps.shape[1]))
        return model

    def predict(self, variant: str, test: str, method: Method) -> Array | None:
        """Probabilities of labels; a variant without an emotion is tested on that emotion alone."""
        if variant not in (ALL, test.replace(UNSEEN, WITHOUT)):
            return None
        return self._ask(method, test, {e: e for _, e in self._labels[test]})

    def rows(self, variant: str, test: str, method: Method) -> Mapping[str, Array]:
        """A variant that was trained without an emotion also predicts it by the nearest word."""
        rows = super().rows(variant, test, method)
        if variant == ALL or not rows:
            return rows
        nearest = self._ask(method, test, {self._left_out(variant): self._nearest(variant)})
        return {**rows, NEAREST: nearest}

    @torch.no_grad()
    def _ask(self, method: Method, test: str, words: Mapping[int, int]) -> Array:
        """(N, labels) probabilities, each emotion queried by the word of the one given for it."""
        assert isinstance(method, EmotionQueries)
        clips, queries = self._clips[test], self.vectors[list(words.values())]
        parts = []
        for start in range(0, len(clips), BATCH):
            some = clips.take(range(start, min(start + BATCH, len(clips))))
            batch = Batch(some.keys, {"embedding": Padded.stack(some.steps)})
            parts.append(method.score(batch, queries).sigmoid())
        columns = [list(words).index(e) for _, e in self._labels[test]]
        return torch.cat(parts)[:, columns].numpy()

    def baselines(self, test: str) -> dict[str, Array]:
        """Of what is learned, a ridge regression for each emotion on all that the words read.

        Ridge for the reason that `mmembed.studies.probe` gives; its strength is chosen on dev.
        """
        if test != "seen":
            return {}
        vectors = {split: self._statistics(self._splits[split]) for split in ("train", "dev")}
        vectors["test"] = self._statistics(self._clips[test])
        columns = {e: self._ridge(e, vectors) for _, e in self._labels[test]}
        return {"ridge regression": np.stack([columns[e] for _, e in self._labels[test]], 1)}

    def _ridge(self, emotion: int, vectors: Mapping[str, Array]) -> Array:
        """(N,) how far the test rows show an emotion, about 0 to 1; vectors are (N, W) a split."""
        labelled = {}
        for split in ("train", "dev"):
            truth = self._splits[split].emotions[:, emotion].numpy()
            rows = ~np.isnan(truth)
            labelled[split] = vectors[split][rows], truth[rows]
        x, y = labelled["dev"]
        width = vectors["test"].shape[1]
        two = len({*y.tolist()}) > 1  # else dev cannot tell
        best = best_on_dev(
            [make_pipeline(StandardScaler(), Ridge(s * width)) for s in STRENGTHS],
            labelled["train"],
            (lambda m: auroc(y[:, None], m.predict(x)[:, None])) if two else None,
        )
        return np.asarray(best.predict(vectors["test"]), np.float32)

    def _statistics(self, clips: EmotionQueryClips) -> Array:
        """(N, W) float64: all layers side by side, or mean and deviation of the frames."""
        steps = [x.double() for x in clips.steps]
        if self.run.reads == "frames":
            steps = [torch.stack((x.mean(0), x.std(0, correction=0))) for x in steps]
        return torch.stack([x.flatten() for x in steps]).numpy()

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """The area of each label, the nearest words, and the speakers of each split."""
        areas = {}
        for test in self.tests:
            stored = TestPredictions.read(out / "predictions" / f"{test}.safetensors")
            areas[test] = {
                row: {
                    label: finite(float(area))
                    for label, area in zip(
                        stored.items.names,
                        np.mean([label_auroc(stored.items.truth, one) for one in seeds], 0),
                        strict=True,
                    )
                }
                for row, seeds in {**stored.variants, **stored.baselines}.items()
            }
        nearest = {
            self.emotions[self._left_out(v)]: self.emotions[self._nearest(v)]
            for v in self.variants[1:]
        }
        speakers = {split: sorted({*c.groups.names}) for split, c in self._splits.items()}
        return {"label_auroc": areas, "nearest": nearest, "speakers": speakers}

    def _corpus_labels(self, emotions: Sequence[str]) -> list[tuple[str, int]]:
        """(corpus, emotion) for all that a corpus labels, of the emotions named."""
        clips = self._splits["train"]
        corpora = np.array(clips.corpora)
        labelled = ~clips.emotions.isnan().numpy()
        return [
            (corpus, e)
            for corpus in dict.fromkeys(clips.corpora)
            for e in map(self._e, emotions)
            if labelled[corpora == corpus, e].any()
        ]

    def _learnable(self, clips: EmotionQueryClips, variant: str) -> EmotionQueryClips:
        """Those that a variant may learn from, without those of the emotion that it lacks."""
        labelled = ~clips.emotions[:, self._learned(variant)].isnan().all(1)
        if variant != ALL:
            labelled &= ~(clips.emotions[:, self._left_out(variant)] > 0)
        return clips.where(labelled)

    def _learned(self, variant: str) -> list[int]:
        left_out = None if variant == ALL else self._left_out(variant)
        return [e for e in range(len(self.emotions)) if e != left_out]

    def _left_out(self, variant: str) -> int:
        return self._e(variant.removeprefix(WITHOUT))

    def _nearest(self, variant: str) -> int:
        """Of the emotions that a variant knows, the one whose word is nearest to what it lacks."""
        learned = self._learned(variant)
        similarity = self.vectors[learned] @ self.vectors[self._left_out(variant)]
        return learned[int(similarity.argmax())]

    def _e(self, emotion: str) -> int:
        return self.emotions.index(emotion)


def _truth(clips: EmotionQueryClips, labels: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
    """(N, labels) the emotions within each corpus; NaN for the clips of others."""
    columns = [
        np.where(np.array(clips.corpora) == corpus, clips.emotions[:, e].numpy(), np.nan)
        for corpus, e in labels
    ]
    return np.stack(columns, 1).astype(np.float32)
