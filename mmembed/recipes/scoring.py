"""What studies are scored on: held-out truth, measures of it, intervals, the trivial answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmembed import metrics
from mmembed import metrics_multilabel as multilabel
from mmembed.data.atomic import atomic_file
from mmembed.errors import CorruptError

Array = NDArray[Any]
Indices = NDArray[np.int64]
Task = Literal["sentiment", "classes", "labels"]
Measure = Callable[[Array, Array], float]

GROUP: Final = "group"  # where it is not known what the groups are: older files do not say
DRAWS: Final = 1000  # of the bootstrap
LOWER_IS_BETTER: Final = frozenset({"mae"})
WITH_INTERVAL: Final = frozenset({"mae", "correlation", "acc2_pos"})  # and whatever decides


def _uar(truth: Array, predicted: Array) -> float:
    hits = np.asarray(truth) == predicted.argmax(1)
    return float(np.mean([hits[truth == c].mean() for c in np.unique(truth)]))


MEASURES: Final[Mapping[Task, Mapping[str, Measure]]] = {
    "sentiment": {"correlation": metrics.pearson, **metrics.SENTIMENT_SCORES},
    "classes": {
        "weighted_f1": lambda truth, logits: metrics.weighted_f1(truth, logits.argmax(1)),
        "uar": _uar,
        "accuracy": lambda truth, logits: metrics.accuracy(truth, logits.argmax(1)),
    },
    "labels": {
        **{
            name: lambda truth, likely, score=score: score(truth, likely > 0.5)  # type: ignore[misc]
            for name, score in multilabel.SCORES.items()
        },
        "auroc": multilabel.auroc,
    },
}
"""Task -> measure -> its value for truth and predictions of the same items.

sentiment: truth (N,) in [-3, 3], predictions (N,). classes: truth (N,) class numbers, predictions
(N, C) logits or probabilities. labels: truth (N, E) 0 or 1, NaN = not known, predictions (N, E)
probabilities.
"""


@dataclass(frozen=True)
class Held:
    """Held-out items, what is true of them, and how answers are scored.

    Attributes:
        task: decides shapes and measures, see `MEASURES`.
        measure: the one that decides.
        keys: N items.
        groups: N; items of one group (speaker, video, dialogue) are drawn together.
        truth: (N,) or (N, E).
        train: the same of the training items, for the trivial answer.
        names: of classes or labels.
        grouping: what the groups are, such as "speaker", see `mmembed.recipes.groups`.
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
        if self.task == "sentiment":
            constant = np.array(metrics.constant_sentiment(self.train)[measure], np.float32)
        elif self.task == "classes":
            often = np.bincount(self.train, minlength=len(self.names)).argmax()
            constant = np.eye(len(self.names), dtype=np.float32)[often]
        elif measure == "auroc":  # every constant has 0.5
            constant = np.full(self.truth.shape[1], 0.5, np.float32)
        else:
            constant = multilabel.best_constant(self.train, measure).astype(np.float32)
        return np.broadcast_to(constant, (len(self.keys), *np.shape(constant)))

    def trivial_scores(self) -> dict[str, float]:
        """Every measure of its own best constant."""
        scored = MEASURES[self.task].items()
        return {name: score(self.truth, self.trivial(name)) for name, score in scored}

    def scores(self, predicted: Array) -> dict[str, Any]:
        """Measure -> mean and deviation over seeds, and where it counts an interval over groups.

        Args:
            predicted: (S, N, ...), of S seeds.
        """
        found: dict[str, Any] = {}
        for name, score in MEASURES[self.task].items():
            values = [score(self.truth, p) for p in predicted]
            found[name] = {"mean": float(np.mean(values)), "std": float(np.std(values))}
            if name == self.measure or name in WITH_INTERVAL:
                low, high = metrics.bootstrap_interval(
                    lambda rows, score=score: float(  # type: ignore[misc]
                        np.mean([score(self.truth[rows], p[rows]) for p in predicted])
                    ),
                    self.groups,
                    draws=DRAWS,
                )
                found[name] |= {"low": low, "high": high}
        if self.names:
            each = np.mean([self._f1(p) for p in predicted], 0)
            found["f1"] = dict(zip(self.names, each.tolist(), strict=True))
        return found

    def _f1(self, predicted: Array) -> NDArray[np.float64]:
        """(C,) F1 of each class or label."""
        if self.task == "labels":
            return multilabel.label_f1(self.truth, predicted > 0.5)
        count = len(self.names)
        truth = multilabel.one_hot(self.truth, count)
        return multilabel.label_f1(truth, multilabel.one_hot(predicted.argmax(1), count))


@dataclass(frozen=True)
class Scored:
    """Predictions of a study for one set of held-out items, as they are stored.

    Attributes:
        held: the items, without the training truth.
        variants: variant -> (S, N, ...), one for each seed.
        baselines: name -> (1, N, ...), or of bounds (S, N, ...); "trivial" among them.
    """

    held: Held
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
            file.write(save(plain, {"mmembed": json.dumps(described)}))

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
        held = Held(
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
