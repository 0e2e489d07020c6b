"""The emotion regressor on embedding shards, scored on speakers it has never heard.

Each stream subset has a regressor of its own. Sentiment is scored by the conventions of CMU-MOSEI,
or of CH-SIMS where it is rated in [-1, 1]; thresholds of the six emotions are chosen on dev.
Sentiment and each emotion are scored on the clips that are labelled for it.

Where all subsets hold the same clips there is one test, "sentiment". Else each subset is scored on
all clips that it has, and all of them on the clips that every one has; the tests are named so. A
subset without a labelled clip in one of the splits is left out, and the results say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.batch import Batch, Padded
from mmembed.config import read_json
from mmembed.data.manifest.utterance import EMOTIONS, Utterance
from mmembed.errors import UsageError
from mmembed.io.json import write_json
from mmembed.method import Method
from mmembed.methods.emotion import EmotionRegressor
from mmembed.metrics.sentiment import emotion_scores, majority_emotion_scores
from mmembed.settings.finetune import EmotionRun
from mmembed.studies.embeddings_data import Rows, read_embeddings, subset_folders
from mmembed.studies.scoring import Array, TestSet, sentiment_task
from mmembed.studies.splits import SPLITS
from mmembed.studies.study import Study, Trained
from mmembed.studies.trained_on import Learned, TrainedOn, describe
from mmembed.studies.training_distance import FOLDER, TrainingDistances

TEST: Final = "sentiment"
ALL, OWN = "clips of all subsets", "all clips of "  # which clips of it, where subsets differ


class EmotionStudy(Study):
    """Variants are stream subsets; items are clips."""

    def __init__(self, run: EmotionRun) -> None:
        if not run.embeddings:
            raise UsageError("no data: give --embeddings DIR, made by extract --streams every")
        self._clips = clips = read_embeddings(subset_folders(Path(run.embeddings)), _is_labelled)
        self._rows = {
            (subset, split): rows[clips.splits[rows] == split]
            for subset, rows in clips.rows.items()
            for split in SPLITS
        }
        self._rated = ~clips.sentiment.isnan().numpy()  # (N,)
        self._emotions = clips.emotions.numpy()
        self._labelled = ~np.isnan(self._emotions)  # (N, E)
        self.notes: list[str] = []
        self.variants = tuple(self._with_all_splits(run.embeddings))
        self._test_rows = self._name_tests()
        self.tests = {
            name: test for name, rows in self._test_rows.items() if (test := self._test(name, rows))
        }
        some = clips.steps[self.variants[0]][0]
        method = replace(run.method, layers=some.shape[0], width=some.shape[1])
        self.run: EmotionRun = replace(run, method=method)
        if run.untrained:
            untrained = replace(run, embeddings=run.untrained, untrained=None)
            self.controls = {"untrained": EmotionStudy(untrained)}

    def _with_all_splits(self, folder: str) -> list[str]:
        """The subsets that can be trained and scored."""
        complete = []
        for subset in self._clips.rows:
            lacking = [split for split in SPLITS if not len(self._rows[subset, split])]
            if lacking:
                of = " and ".join(lacking)
                self.notes.append(f"{subset} is left out: it has no labelled clip of split {of}")
            else:
                complete.append(subset)
        if not complete:
            raise UsageError(f"{folder}: nothing to train and score; {'; '.join(self.notes)}")
        return complete

    def _name_tests(self) -> dict[str, Rows]:
        """Name of a test -> the clips it is about, whatever they are labelled for."""
        clips = self._clips
        present = {subset: clips.present(subset) for subset in self.variants}
        tested = clips.splits == "test"
        every = np.logical_and.reduce([*present.values()]) & tested
        some = np.logical_or.reduce([*present.values()]) & tested
        if np.array_equal(every, some):
            return {TEST: np.flatnonzero(every)}
        named = {f"{TEST}, {ALL}": np.flatnonzero(every)}
        if not every.any():
            self.notes.append("no test clip is in all subsets: each is scored on its own alone")
        own = {f"{TEST}, {OWN}{s}": np.flatnonzero(present[s] & tested) for s in self.variants}
        return {name: rows for name, rows in {**named, **own}.items() if len(rows)}

    def _test(self, name: str, rows: Rows) -> TestSet | None:
        """The test clips whose sentiment is known; None where it cannot be learned or scored.

        The constant baseline knows the training clips of all subsets that the test is for.
        """
        clips, subsets = self._clips, self._subsets(name)
        rows = rows[self._rated[rows]]
        train = self._train_rows(subsets)
        if not len(rows) or not any(self._learns(subset) for subset in subsets):
            return None
        groups = clips.groups(rows)
        return TestSet(
            sentiment_task(clips.limit),
            "correlation",
            tuple(clips.keys[row] for row in rows),
            groups.names,
            clips.sentiment.numpy()[rows],
            clips.sentiment.numpy()[train[self._rated[train]]],
            grouping=groups.kind,
        )

    def _subsets(self, test: str) -> tuple[str, ...]:
        """Those that a test is for."""
        _, _, own = test.partition(OWN)
        return (own,) if own else self.variants

    def _train_rows(self, subsets: Sequence[str]) -> Rows:
        """The training clips that any of the subsets holds."""
        present = np.logical_or.reduce([self._clips.present(subset) for subset in subsets])
        return np.flatnonzero(present & (self._clips.splits == "train"))

    def _learns(self, subset: str) -> bool:
        """Whether the sentiment of any of its training clips is known."""
        return bool(self._rated[self._rows[subset, "train"]].any())

    def size(self, variant: str, split: str) -> int:
        """Labelled clips of a split."""
        return len(self._rows[variant, split])

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Their vectors."""
        return self._batch(variant, self._rows[variant, split][list(rows)])

    def _batch(self, variant: str, rows: Rows) -> Batch:
        """Some of all clips, by a subset that holds them."""
        emotions = self._clips.emotions[rows]
        label_mask = ~emotions.isnan()
        # Of a clip with some of its emotions the others are 0, and masked.
        partly = label_mask.any(1, keepdim=True)
        return Batch(
            tuple(self._clips.keys[row] for row in rows),
            {"embedding": Padded.stack(self._clips.values(variant, rows))},
            {
                "sentiment": self._clips.sentiment[rows],
                "emotions": emotions.masked_fill(~label_mask & partly, 0),
            },
            {"label_mask": label_mask},
        )

    def method(self, variant: str) -> Method:
        """A regressor that knows mean and standard deviation of the training vectors."""
        model = EmotionRegressor(self.run.method)
        train = self._clips.values(variant, self._rows[variant, "train"])
        model.standardise_by(torch.stack(train))
        return model

    def predict(self, variant: str, test: str, method: Method) -> Array | None:
        """Sentiment of the test clips."""
        if variant not in self._subsets(test) or not self._learns(variant):
            return None
        rows = self._test_rows[test]
        return self._predict(variant, method, "test", rows[self._rated[rows]])["sentiment"]

    @torch.no_grad()
    def _predict(self, variant: str, method: Method, split: str, rows: Rows) -> dict[str, Array]:
        """Target -> (n, ...) for some clips of a split; all of them are predicted together."""
        every = self._rows[variant, split]
        position = np.full(len(self._clips), -1, np.int64)
        position[every] = np.arange(len(every))
        predicted = method.predict(self._batch(variant, every))
        return {name: values.numpy()[position[rows]] for name, values in predicted.items()}

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """Scores of each emotion, and which layers the regressors of all streams read."""
        methods = {subset: trained(subset) for subset in self.variants}
        for subset in self.variants:
            self._keep_distances(out, subset, methods[subset][0])
        tables = {
            test.partition(", ")[2]: table
            for test, rows in self._test_rows.items()
            if (table := self._emotion_table(methods, self._subsets(test), rows))
        }
        first = tables.pop("", None) or tables.pop(ALL, None) or {}
        everything = self.variants[-1]
        write_json(out / "predictions.json", self._predictions(everything, methods[everything]))
        extras: dict[str, Any] = {"layer_weights": self._layer_weights(methods[everything])}
        if first or tables:
            extras["emotions"] = {**first, "by_clips": tables} if tables else first
        return extras

    def trained_on(self) -> TrainedOn:
        """See `Study`; clips of the subset with the most streams."""
        subset = self.variants[-1]
        train = [self._clips.utterances[row] for row in self._rows[subset, "train"]]
        metadata = read_json(subset_folders(Path(self.run.embeddings))[subset] / "manifest.json")
        inputs = metadata.get("inputs")
        named = list(map(str, inputs)) if isinstance(inputs, list) else [self.run.embeddings]
        data = describe(named, train)
        learned = [Learned(subset, self._learned(subset)) for subset in self.variants]
        return TrainedOn((data,), self._clips.encoder, tuple(learned), self._clips.limit)

    def _learned(self, subset: str) -> tuple[str, ...]:
        """Sentiment and emotions that its training clips are labelled for."""
        train = self._rows[subset, "train"]
        emotions = [n for e, n in enumerate(EMOTIONS) if self._labelled[train, e].any()]
        return (*(["sentiment"] if self._learns(subset) else []), *emotions)

    def _keep_distances(self, out: Path, subset: str, method: Method) -> None:
        """How far training clips lie from each other, for `mmembed predict`."""
        assert isinstance(method, EmotionRegressor)
        rows = self._rows[subset, "train"]
        vectors = torch.stack(self._clips.values(subset, rows))
        groups = self._clips.groups(rows).names
        distances = TrainingDistances.of(vectors, method.mean, method.scale, groups)
        if distances is not None:
            distances.write(out / FOLDER / f"{subset}.safetensors")

    def _layer_weights(self, models: Sequence[Method]) -> dict[str, float]:
        """Mean over seeds."""
        regressors = [model for model in models if isinstance(model, EmotionRegressor)]
        weights = torch.stack([model.layers.weights.detach() for model in regressors]).mean(0)
        names = self._clips.layers or tuple(map(str, range(len(weights))))
        return dict(zip(names, weights.tolist(), strict=True))

    def _emotion_table(
        self, methods: Mapping[str, Sequence[Method]], subsets: Sequence[str], rows: Rows
    ) -> dict[str, Any]:
        """Scores of each emotion on the clips labelled for it; {} where there is none.

        An emotion that a subset has no training, dev or test clip of has no scores there.
        """
        variants = {
            subset: scores
            for subset in subsets
            if (scores := self._emotion_scores(subset, methods[subset], rows))
        }
        if not variants:
            return {}
        train = self._train_rows(subsets)
        constant: dict[str, Any] = {}
        counts: dict[str, Any] = {}
        for e, emotion in enumerate(EMOTIONS):
            if not any(emotion in scores for scores in variants.values()):
                continue
            test, learned = (some[self._labelled[some, e]] for some in (rows, train))
            truth = self._emotions[test, e]
            constant[emotion] = majority_emotion_scores(self._emotions[learned, e], truth)
            groups = self._clips.groups(test)
            counts[emotion] = {
                "items": len(test),
                "positives": int((truth > 0).sum()),
                "groups": len({*groups.names}),
                "grouping": groups.kind,
            }
        return {"variants": variants, "constant": constant, "counts": counts}

    def _emotion_scores(
        self, subset: str, methods: Sequence[Method], rows: Rows
    ) -> dict[str, dict[str, Any]]:
        """Emotion -> its scores by one stream subset; thresholds are chosen on dev."""
        dev, train = self._rows[subset, "dev"], self._rows[subset, "train"]
        predicted = [
            [self._predict(subset, method, *part)["emotions"] for method in methods]
            for part in (("dev", dev), ("test", rows))
        ]
        table = {}
        for e, emotion in enumerate(EMOTIONS):
            tuned, scored = self._labelled[dev, e], self._labelled[rows, e]
            if not (tuned.any() and scored.any() and self._labelled[train, e].any()):
                continue
            scores = []
            for on_dev, on_test in zip(*predicted, strict=True):
                chosen = _threshold(self._emotions[dev[tuned], e], on_dev[tuned, e])
                truth = self._emotions[rows[scored], e]
                scores.append(emotion_scores(truth, on_test[scored, e], chosen))
            table[emotion] = {name: _spread([s[name] for s in scores]) for name in ("wa", "f1")}
        return table

    def _predictions(self, subset: str, methods: Sequence[Method]) -> dict[str, Any]:
        """Truth and prediction (mean over seeds) for each test clip that the subset has.

        What no training clip is labelled for has no prediction; a label that is not known is null.
        """
        rows, train = self._rows[subset, "test"], self._rows[subset, "train"]
        each = [self._predict(subset, method, "test", rows) for method in methods]
        truth = {"sentiment": self._clips.sentiment, "emotions": self._clips.emotions}
        targets = {
            name: {
                "truth": values[rows].tolist(),
                "predicted": np.mean([one[name] for one in each], 0).tolist(),
            }
            for name, values in truth.items()
            if not values[train].isnan().all()
        }
        some = [self._clips.utterances[row] for row in rows]
        keys, speakers = [row.key for row in some], [row.speaker for row in some]
        return {"keys": keys, "speakers": speakers, **targets}


def _is_labelled(row: Utterance) -> bool:
    """Whether a study of emotion has a use for a clip."""
    emotions = row.labels.emotions or ()
    labelled = row.labels.sentiment is not None or any(x is not None for x in emotions)
    return labelled and row.split in SPLITS


def _threshold(truth: NDArray[np.float32], predicted: NDArray[np.float32]) -> float:
    """The intensity from which an emotion counts as present: best balanced accuracy.

    Args:
        truth: (n,) of dev clips that are labelled for it.
        predicted: (n,).
    """
    candidates = np.quantile(predicted, np.linspace(0.05, 0.95, 19))
    scores = [emotion_scores(truth, predicted, c)["wa"] for c in candidates]
    return float(candidates[int(np.argmax(scores))])


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values))}
