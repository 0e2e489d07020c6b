"""What studies are scored on: test sets, their metrics with intervals, and constant baselines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from mmembed.metrics import classes, multilabel, sentiment
from mmembed.metrics.bootstrap import bootstrap_interval, num_groups
from mmembed.metrics.classes import Metric

Array = NDArray[Any]
Indices = NDArray[np.int64]
Task = Literal["sentiment", "sims", "classes", "labels"]

GROUP: Final = "group"  # where it is not known what the groups are: older files do not say
DRAWS: Final = 1000  # of the bootstrap
LOWER_IS_BETTER: Final = frozenset({"mae"})
ONE_NUMBER: Final = frozenset({"sentiment", "sims"})  # tasks whose predictions are (N,)
POLAR: Final = frozenset({"acc2_pos", "f1_pos"})  # count no item whose sentiment is 0
BY_LABEL: Final = frozenset({"macro_f1", "auroc"})  # means over labels
WITH_INTERVAL: Final = frozenset({"mae", "correlation", "acc2_pos"})  # and the deciding metric


def _of_classes(metric: Metric) -> Metric:
    return lambda truth, logits: metric(truth, logits.argmax(1))


def _of_labels(metric: Metric) -> Metric:
    return lambda truth, probabilities: metric(truth, probabilities > 0.5)


METRICS: Final[Mapping[Task, Mapping[str, Metric]]] = {
    "sentiment": sentiment.SENTIMENT_METRICS,
    "sims": sentiment.SIMS_METRICS,
    "classes": {
        "weighted_f1": _of_classes(classes.weighted_f1),
        "uar": _of_classes(classes.unweighted_average_recall),
        "accuracy": _of_classes(classes.accuracy),
    },
    "labels": {
        **{name: _of_labels(metric) for name, metric in multilabel.METRICS.items()},
        "auroc": multilabel.auroc,
    },
}
"""Task -> metric -> its value for truth and predictions of the same items.

sentiment: truth (N,) in [-3, 3], predictions (N,). sims: the same of CH-SIMS, in [-1, 1]. classes:
truth (N,) class numbers, predictions (N, C) logits or probabilities. labels: truth (N, E) 0 or 1,
NaN = not known, predictions (N, E) probabilities.
"""


def sentiment_task(limit: float) -> Task:
    """The task of sentiment in [-limit, limit]: each corpus is scored by its own conventions."""
    return "sims" if limit == 1 else "sentiment"


@dataclass(frozen=True)
class TestSet:
    """Held-out items with their truth, and how predictions for them are scored.

    Attributes:
        task: decides shapes and metrics, see `METRICS`.
        metric: the one that decides.
        keys: N items.
        groups: N; items of one group (speaker, video, dialogue) are drawn together.
        truth: (N,) or (N, E).
        train: the same of the training items, for the constant baseline.
        names: of classes or labels.
        grouping: what the groups are, such as "speaker", see `mmembed.studies.groups`.
    """

    task: Task
    metric: str
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    truth: Array
    train: Array
    names: tuple[str, ...] = ()
    grouping: str = GROUP

    def constant(self, metric: str) -> Array:
        """(N, ...) the constant prediction that scores best on the training items."""
        if self.task in ONE_NUMBER:
            constant = np.array(sentiment.best_constant(self.train, metric), np.float32)
        elif self.task == "classes":
            majority = np.bincount(self.train, minlength=len(self.names)).argmax()
            constant = np.eye(len(self.names), dtype=np.float32)[majority]
        elif metric == "auroc":  # every constant has 0.5
            constant = np.full(self.truth.shape[1], 0.5, np.float32)
        else:
            constant = multilabel.best_constant(self.train, metric).astype(np.float32)
        return np.broadcast_to(constant, (len(self.keys), *np.shape(constant)))

    def constant_scores(self) -> dict[str, float | None]:
        """Each metric of its own best constant; None where it is not defined."""
        return {name: finite(self.score(name, self.constant(name))) for name in METRICS[self.task]}

    def score(self, metric: str, predicted: Array, rows: Indices | None = None) -> float:
        """A metric of predictions (N, ...), of all items or of some rows, with repetitions.

        NaN where it is not defined. A mean over labels is one over those that some item shows.
        """
        truth = self.truth
        if metric in BY_LABEL and not self._shown.all():
            truth, predicted = truth[:, self._shown], predicted[:, self._shown]
        if rows is not None:
            truth, predicted = truth[rows], predicted[rows]
        return METRICS[self.task][metric](truth, predicted)

    @cached_property
    def _shown(self) -> NDArray[np.bool_]:
        """(E,) the labels that some item shows."""
        return np.asarray((self.truth > 0).any(0), bool)

    def counted(self, metric: str) -> NDArray[np.bool_]:
        """(N,) the items that a metric rests on."""
        if self.task == "labels":
            labels = self._shown if metric in BY_LABEL else slice(None)
            return np.asarray(~np.isnan(self.truth[:, labels]).all(1), bool)
        return self.truth != 0 if metric in POLAR else np.ones(len(self.keys), bool)

    def scores(self, predicted: Array) -> dict[str, Any]:
        """Metric -> mean and standard deviation over seeds, some with an interval over groups.

        Both are None where the metric is not defined. Where there is no interval, "note" says why.

        Args:
            predicted: (S, N, ...), of S seeds.
        """
        scores: dict[str, Any] = {}
        for name in METRICS[self.task]:
            values = [self.score(name, p) for p in predicted]
            mean, std = float(np.mean(values)), float(np.std(values))
            scores[name] = {"mean": finite(mean), "std": finite(std)}
            if np.isfinite(mean) and (name == self.metric or name in WITH_INTERVAL):
                interval = bootstrap_interval(
                    lambda rows, name=name: float(  # type: ignore[misc]
                        np.mean([self.score(name, p, rows) for p in predicted])
                    ),
                    self.groups,
                    kind=self.grouping,
                    counted=self.counted(name),
                    draws=DRAWS,
                )
                scores[name] |= interval.to_json()
        if self.names:
            f1 = np.mean([self._f1(p) for p in predicted], 0).tolist()
            scores["f1"] = {name: finite(x) for name, x in zip(self.names, f1, strict=True)}
        return scores

    def _f1(self, predicted: Array) -> NDArray[np.float64]:
        """(C,) F1 of each class or label; NaN for one that no item has."""
        truth, shown = self.truth, predicted > 0.5
        if self.task == "classes":
            truth, shown = self._one_hot(truth), self._one_hot(predicted.argmax(1))
        return np.where((truth > 0).any(0), multilabel.label_f1(truth, shown), np.nan)

    def _one_hot(self, numbers: Array) -> NDArray[np.bool_]:
        return np.asarray(numbers[:, None] == np.arange(len(self.names)))

    def counts(self) -> dict[str, Any]:
        """On how many items and groups each figure rests, and what was left out.

        Returns:
            As plain JSON values. items, groups: of the test; grouping: what the groups are;
            counts: metric -> items and groups; labels, of named classes or labels: name -> items
            (whose label is known), positives (that show it), groups (of the known ones),
            train_positives; notes: what is not defined or left out, and why.
        """
        counted = {metric: self.counted(metric) for metric in METRICS[self.task]}
        return {
            "items": len(self.keys),
            "groups": num_groups(self.groups),
            "grouping": self.grouping,
            "counts": {
                metric: {"items": int(rows.sum()), "groups": num_groups(self.groups, rows)}
                for metric, rows in counted.items()
            },
            **({"labels": self.label_counts()} if self.names else {}),
            "notes": list(self.left_out()),
        }

    def label_counts(self) -> dict[str, dict[str, int]]:
        """See `counts`."""
        truth, train = self.truth, self.train
        if self.task == "classes":
            truth, train = self._one_hot(truth), self._one_hot(train)
        known = ~np.isnan(truth.astype(np.float32))
        return {
            name: {
                "items": int(known[:, column].sum()),
                "positives": int((truth[:, column] > 0).sum()),
                "groups": num_groups(self.groups, known[:, column]),
                "train_positives": int((train[:, column] > 0).sum()),
            }
            for column, name in enumerate(self.names)
        }

    def left_out(self) -> Iterator[str]:
        """What is not defined or not in a mean, and why."""
        if self.task in ONE_NUMBER:
            if self.task == "sentiment" and not (self.truth != 0).any():
                yield f"{', '.join(sorted(POLAR))}: no item whose sentiment is not 0"
            if np.ptp(self.truth) == 0:
                yield "correlation: 0, as all items have one sentiment"
        counts = self.label_counts() if self.names else {}
        if missing := [name for name, one in counts.items() if not one["positives"]]:
            kind = "class" if self.task == "classes" else "label"
            yield f"left out, as no test item has this {kind}: {', '.join(missing)}"
        if len(self.train) and (new := [n for n, c in counts.items() if not c["train_positives"]]):
            yield f"no training item has: {', '.join(new)}"

    def undecided(self) -> str:
        """Why the metric that decides has no value; "" where it has."""
        if not self.keys:
            return "no labelled item"
        if self.metric in POLAR and not self.counted(self.metric).any():
            return "no item whose sentiment is above or below 0"
        if self.task == "labels" and not self._shown.any():
            return "no item that has any of the labels"
        if np.isnan(self.score(self.metric, self.constant(self.metric))):
            return "no label that some items have and others have not"
        return ""


def finite(value: float) -> float | None:
    """The value, or None for NaN: JSON has no such number."""
    return value if np.isfinite(value) else None
