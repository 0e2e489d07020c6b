"""What studies are scored on: held-out truth, measures of it, intervals, the trivial answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmembed.errors import CorruptError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.metrics import bootstrap, classes, multilabel, sentiment
from mmembed.metrics.bootstrap import Interval

Array = NDArray[Any]
Indices = NDArray[np.int64]
Task = Literal["sentiment", "sims", "classes", "labels"]
Metric = Callable[[Array, Array], float]

GROUP: Final = "group"  # where it is not known what the groups are: older files do not say
DRAWS: Final = 1000  # of the bootstrap
LOWER_IS_BETTER: Final = frozenset({"mae"})
POLAR: Final = frozenset({"acc2_pos", "f1_pos"})  # count no item whose sentiment is 0
BY_LABEL: Final = frozenset({"macro_f1", "auroc"})  # means over labels
WITH_INTERVAL: Final = frozenset({"mae", "correlation", "acc2_pos"})  # and whatever decides


METRICS: Final[Mapping[Task, Mapping[str, Metric]]] = {
    "sentiment": sentiment.SENTIMENT_METRICS,
    "sims": sentiment.SIMS_METRICS,
    "classes": {
        "weighted_f1": lambda truth, logits: classes.weighted_f1(truth, logits.argmax(1)),
        "uar": lambda truth, logits: classes.unweighted_average_recall(truth, logits.argmax(1)),
        "accuracy": lambda truth, logits: classes.accuracy(truth, logits.argmax(1)),
    },
    "labels": {
        **{
            name: lambda truth, likely, score=score: score(truth, likely > 0.5)  # type: ignore[misc]
            for name, score in multilabel.METRICS.items()
        },
        "auroc": multilabel.auroc,
    },
}
"""Task -> measure -> its value for truth and predictions of the same items.

sentiment: truth (N,) in [-3, 3], predictions (N,). sims: the same of CH-SIMS, in [-1, 1]. classes:
truth (N,) class numbers, predictions (N, C) logits or probabilities. labels: truth (N, E) 0 or 1,
NaN = not known, predictions (N, E) probabilities.
"""


CONSTANTS: Final[Mapping[Task, Callable[[Array], Mapping[str, float]]]] = {
    "sentiment": sentiment.constant_sentiment,
    "sims": sentiment.constant_sims,
}
"""Task whose answers are one number -> the constants that are best on training truth (N,)."""


def sentiment_task(limit: float) -> Task:
    """The task of sentiment in [-limit, limit]: each corpus is scored by its own conventions."""
    return "sims" if limit == 1 else "sentiment"


@dataclass(frozen=True)
class TestSet:
    """Held-out items, what is true of them, and how answers are scored.

    Attributes:
        task: decides shapes and measures, see `METRICS`.
        measure: the one that decides.
        keys: N items.
        groups: N; items of one group (speaker, video, dialogue) are drawn together.
        truth: (N,) or (N, E).
        train: the same of the training items, for the trivial answer.
        names: of classes or labels.
        grouping: what the groups are, such as "speaker", see `mmembed.studies.groups`.
    """

    task: Task
    measure: str
    keys: tuple[str, ...]
    groups: tuple[str, ...]
    truth: Array
    train: Array
    names: tuple[str, ...] = ()
    grouping: str = GROUP

    def trivial(self, measure: str) -> Array:
        """(N, ...) the constant that scores best on the training items."""
        if self.task in CONSTANTS:
            constant = np.array(CONSTANTS[self.task](self.train)[measure], np.float32)
        elif self.task == "classes":
            often = np.bincount(self.train, minlength=len(self.names)).argmax()
            constant = np.eye(len(self.names), dtype=np.float32)[often]
        elif measure == "auroc":  # every constant has 0.5
            constant = np.full(self.truth.shape[1], 0.5, np.float32)
        else:
            constant = multilabel.best_constant(self.train, measure).astype(np.float32)
        return np.broadcast_to(constant, (len(self.keys), *np.shape(constant)))

    def trivial_scores(self) -> dict[str, float | None]:
        """Every measure of its own best constant; None where it is not defined."""
        return {name: finite(self.score(name, self.trivial(name))) for name in METRICS[self.task]}

    def score(self, measure: str, predicted: Array, rows: Indices | None = None) -> float:
        """A measure of predictions (N, ...), of all items or of some rows, with repetitions.

        NaN where it is not defined. A mean over labels is one over those that some item shows.
        """
        truth, score = self.truth, METRICS[self.task][measure]
        if measure in BY_LABEL and not self._shown.all():
            truth, predicted = truth[:, self._shown], predicted[:, self._shown]
        return score(truth, predicted) if rows is None else score(truth[rows], predicted[rows])

    @cached_property
    def _shown(self) -> NDArray[np.bool_]:
        """(E,) the labels that some item shows."""
        return np.asarray((self.truth > 0).any(0), bool)

    def counted(self, measure: str) -> NDArray[np.bool_]:
        """(N,) the items that a measure rests on."""
        if self.task == "labels":
            labels = self._shown if measure in BY_LABEL else slice(None)
            return np.asarray(~np.isnan(self.truth[:, labels]).all(1), bool)
        return self.truth != 0 if measure in POLAR else np.ones(len(self.keys), bool)

    def scores(self, predicted: Array) -> dict[str, Any]:
        """Measure -> mean and deviation over seeds, and where it counts an interval over groups.

        Both are None where the measure is not defined. Where there is no interval, "note" says why.

        Args:
            predicted: (S, N, ...), of S seeds.
        """
        found: dict[str, Any] = {}
        for name in METRICS[self.task]:
            values = [self.score(name, p) for p in predicted]
            mean, spread = float(np.mean(values)), float(np.std(values))
            found[name] = {"mean": finite(mean), "std": finite(spread)}
            if self.has_interval(name) and np.isfinite(mean):
                interval = bootstrap.bootstrap_interval(
                    lambda rows, name=name: float(  # type: ignore[misc]
                        np.mean([self.score(name, p, rows) for p in predicted])
                    ),
                    self.groups,
                    kind=self.grouping,
                    counted=self.counted(name),
                    draws=DRAWS,
                )
                found[name] |= written(interval)
        if self.names:
            each = np.mean([self._f1(p) for p in predicted], 0)
            found["f1"] = {n: finite(f1) for n, f1 in zip(self.names, each.tolist(), strict=True)}
        return found

    def has_interval(self, measure: str) -> bool:
        """Whether scores have an interval in this measure."""
        return measure == self.measure or measure in WITH_INTERVAL

    def _f1(self, predicted: Array) -> NDArray[np.float64]:
        """(C,) F1 of each class or label; NaN for one that no item has."""
        truth, found = self.truth, predicted > 0.5
        if self.task == "classes":
            count = len(self.names)
            truth = multilabel.one_hot(self.truth, count)
            found = multilabel.one_hot(predicted.argmax(1), count)
        return np.where((truth > 0).any(0), multilabel.label_f1(truth, found), np.nan)

    def counts(self) -> dict[str, Any]:
        """On how many items and groups each figure rests, and what was left out.

        Returns:
            As plain JSON values. items, groups: of the test; grouping: what the groups are;
            counts: measure -> items and groups; labels, of named classes or labels: name -> items
            (whose label is known), positives (that show it), groups (of the known ones),
            train_positives; notes: what is not defined or left out, and why.
        """
        told: dict[str, Any] = {
            "items": len(self.keys),
            "groups": bootstrap.num_groups(self.groups),
            "grouping": self.grouping,
            "counts": {
                measure: {
                    "items": int((counted := self.counted(measure)).sum()),
                    "groups": bootstrap.num_groups(self.groups, counted),
                }
                for measure in METRICS[self.task]
            },
        }
        if self.names:
            told["labels"] = self.label_counts()
        return {**told, "notes": list(self.left_out())}

    def label_counts(self) -> dict[str, dict[str, int]]:
        """See `counts`."""
        truth, train = self.truth, self.train
        if self.task == "classes":
            truth, train = (multilabel.one_hot(x, len(self.names)) for x in (truth, train))
        known = ~np.isnan(truth.astype(np.float32))
        return {
            name: {
                "items": int(known[:, column].sum()),
                "positives": int((truth[:, column] > 0).sum()),
                "groups": bootstrap.num_groups(self.groups, known[:, column]),
                "train_positives": int((train[:, column] > 0).sum()),
            }
            for column, name in enumerate(self.names)
        }

    def left_out(self) -> Iterator[str]:
        """What is not defined or not in a mean, and why."""
        if self.task in CONSTANTS:
            if self.task == "sentiment" and not (self.truth != 0).any():
                yield f"{', '.join(sorted(POLAR))}: no item whose sentiment is not 0"
            if np.ptp(self.truth) == 0:
                yield "correlation: 0, as all items have one sentiment"
        counts = self.label_counts() if self.names else {}
        if lacking := [name for name, one in counts.items() if not one["positives"]]:
            what = "class" if self.task == "classes" else "label"
            yield f"left out, as no test item has this {what}: {', '.join(lacking)}"
        if len(self.train) and (new := [n for n, c in counts.items() if not c["train_positives"]]):
            yield f"no training item has: {', '.join(new)}"

    def undecided(self) -> str:
        """Why the measure that decides has no value; "" where it has."""
        if not self.keys:
            return "no labelled item"
        if self.measure in POLAR and not self.counted(self.measure).any():
            return "no item whose sentiment is above or below 0"
        if self.task == "labels" and not self._shown.any():
            return "no item that has any of the labels"
        if np.isnan(self.score(self.measure, self.trivial(self.measure))):
            return "no label that some items have and others have not"
        return ""


def finite(value: float) -> float | None:
    """The value, or None for NaN: JSON has no such number."""
    return value if np.isfinite(value) else None


def written(interval: Interval) -> dict[str, Any]:
    """As it stands beside a mean: its ends where there are any, and its note where there is one."""
    found: dict[str, Any] = {}
    if interval.low is not None:
        found |= {"low": interval.low, "high": interval.high}
    return found | ({"note": interval.note} if interval.note else {})


@dataclass(frozen=True)
class TestPredictions:
    """Predictions of a study for one set of held-out items, as they are stored.

    Attributes:
        held: the items, without the training truth.
        variants: variant -> (S, N, ...), one for each seed.
        baselines: name -> (1, N, ...), or of bounds (S, N, ...); "trivial" among them.
    """

    held: TestSet
    variants: Mapping[str, Array]
    baselines: Mapping[str, Array] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write a safetensors file."""
        held = self.held
        described = {
            "task": held.task,
            "measure": held.measure,
            "keys": held.keys,
            "groups": held.groups,
            "grouping": held.grouping,
            "names": held.names,
            "variants": list(self.variants),
            "baselines": list(self.baselines),
        }
        tensors = {"truth": held.truth}
        tensors |= {f"variants/{name}": values for name, values in self.variants.items()}
        tensors |= {f"baselines/{name}": values for name, values in self.baselines.items()}
        plain = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        with atomic_file(path) as file:
            file.write(save(plain, {"mmembed": dumps(described)}))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            CorruptError: it is no such file.
        """
        try:
            with safe_open(path, "numpy") as file:
                told = json.loads(file.metadata()["mmembed"])
                truth = file.get_tensor("truth")
                parts = {
                    part: {name: file.get_tensor(f"{part}/{name}") for name in told[part]}
                    for part in ("variants", "baselines")
                }
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise CorruptError(f"{path}: holds no predictions of a study ({error})") from None
        held = TestSet(
            told["task"],
            told["measure"],
            tuple(told["keys"]),
            tuple(told["groups"]),
            truth,
            truth[:0],
            tuple(told["names"]),
            str(told.get("grouping", GROUP)),
        )
        return cls(held, parts["variants"], parts["baselines"])
