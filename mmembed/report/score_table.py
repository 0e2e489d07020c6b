"""Scores as the cells of a table: mean, standard deviation and interval; the best one is bold."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final, Literal, Self

from mmembed.studies.scoring import LOWER_IS_BETTER

DASH = "\u2013"  # shown where a number is not known
METRIC_NAMES: Final[Mapping[str, str]] = {
    "mae": "MAE",
    "correlation": "Correlation",
    "acc2_nonneg": "Acc-2 (\u2265 0)",
    "f1_nonneg": "F1 (\u2265 0)",
    "acc2_pos": "Acc-2 (> 0)",
    "f1_pos": "F1 (> 0)",
    "acc7": "Acc-7",
    "acc5_rounded": "Acc-5",
    "acc2": "Acc-2 (\u2264 0, > 0)",
    "weighted_f1": "Weighted F1",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
    "uar": "UAR",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "jaccard": "Jaccard",
    "macro_f1_neither_0": "Macro F1, all labels, neither side 0",
    "macro_f1_neither_1": "Macro F1, all labels, neither side 1",
    "auroc": "AUROC",
}
"""Metrics as columns call them, in the order of the columns."""


def number(value: object, digits: int = 3) -> str:
    """`0.5` -> `0.500`, and a dash for what is no finite number."""
    return f"{value:,.{digits}f}" if math.isfinite(as_float(value)) else DASH


def percent(value: object, digits: int = 1) -> str:
    """`0.123` -> `12.3 %`, and a dash for what is no finite number."""
    known = math.isfinite(as_float(value))
    return f"{number(100 * as_float(value), digits)} %" if known else DASH


def as_float(value: object) -> float:
    """A number as it is, NaN for all else."""
    return float(value) if isinstance(value, int | float) else math.nan


@dataclass(frozen=True)
class Score:
    """A score over seeds with its interval; NaN where unknown."""

    mean: float
    std: float = math.nan
    low: float = math.nan
    high: float = math.nan

    @classmethod
    def of(cls, value: object) -> Self:
        """From `{"mean": .., "std": .., "low": .., "high": ..}`, a number, a score, or nothing."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, Mapping):
            return cls(as_float(value))
        return cls(*(as_float(value.get(name)) for name in ("mean", "std", "low", "high")))


@dataclass(frozen=True)
class Cell:
    """A cell that the macro `cell` writes.

    Attributes:
        text: the number or the name.
        spread: a standard deviation behind it.
        interval: in small letters below it.
        style: how the text stands out, if it does; a baseline is indented and grey.
    """

    text: str
    spread: str = ""
    interval: str = ""
    style: Literal["", "best", "baseline", "wrong"] = ""


@dataclass(frozen=True)
class ScoreRow:
    """One line of a score table; baselines do not compete for the best."""

    name: str
    scores: Mapping[str, Any]
    baseline: bool = False
    seeds: int | None = None

    def score(self, column: str) -> Score:
        """Without a standard deviation where there is one seed."""
        score = Score.of(self.scores.get(column))
        return Score(score.mean, math.nan, score.low, score.high) if self.seeds == 1 else score


def score_cells(
    rows: Sequence[ScoreRow], columns: Iterable[str], in_percent: Collection[str] = ()
) -> list[list[Cell]]:
    """The cells of each row, its name first; the best mean of each column is bold."""
    table = [[Cell(row.name, style="baseline" if row.baseline else "")] for row in rows]
    for column in columns:
        best = best_mean(column, [row.score(column).mean for row in rows if not row.baseline])
        scale, digits = (100, 1) if column in in_percent else (1, 3)
        for row, cells in zip(rows, table, strict=True):
            score = row.score(column)
            mean, std, low, high = (number(scale * value, digits) for value in astuple(score))
            spread = f" \u00b1 {std}" if math.isfinite(score.std) else ""
            interval = f"{low} to {high}" if math.isfinite(score.low) else ""
            is_best = score.mean == best and not row.baseline
            cells.append(Cell(mean, spread, interval, "best" if is_best else ""))
    return table


def best_mean(metric: str, means: Iterable[float]) -> float:
    """The best of the means that are known; NaN where none is."""
    known = [mean for mean in means if math.isfinite(mean)]
    return (min if metric in LOWER_IS_BETTER else max)(known, default=math.nan)
