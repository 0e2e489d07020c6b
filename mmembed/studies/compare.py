"""Methods side by side: rows of several runs on the same items, and their paired differences.

In each draw of the bootstrap all rows are scored on the same groups (speakers, videos, dialogues),
so that what makes a group easy or hard for all of them cancels in the difference of two rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mmembed.errors import CorruptError, UsageError
from mmembed.metrics.bootstrap import percentile_interval, resamples, too_few
from mmembed.metrics.classes import Floats
from mmembed.studies.finished_runs import FinishedRun, TestGroup, group_tests, item_order
from mmembed.studies.results import CONSTANT
from mmembed.studies.scoring import DRAWS, METRICS, Array, TestSet

Update = Callable[[float], object]
Part = Literal["variant", "control", "baseline"]


@dataclass(frozen=True)
class Row:
    """A row of a comparison.

    Attributes:
        name: "run: variant", or the variant where there is one run.
        part: what it is; baselines include the constant one.
        scores: metric -> {"mean", "std"}, with "low" and "high" of the compared metric; where
            classes or labels have names also "f1", name -> F1.
        predictions: (S, N, ...) of S seeds; None for a constant baseline of another metric than the
            deciding one, of which no predictions are stored.
        difference: from the reference in the metric's units, "mean" above 0 where the row has more;
            with the ends "low" and "high" of its 95 % percentile interval over draws of groups and
            the two-sided bootstrap p-value "p" where there is an interval. p is 2 (min(a, b) + 1) /
            (draws + 1), at most 1, where the difference is at or below zero in `a` draws and at or
            above zero in `b`; it is of one difference: nothing is corrected for how many rows there
            are. None for the reference, without predictions, and where the metric is not defined.
    """

    name: str
    part: Part
    scores: Mapping[str, Any]
    predictions: Array | None
    difference: Mapping[str, float] | None = None

    @property
    def seeds(self) -> int:
        """How many its means are over."""
        return 1 if self.predictions is None else len(self.predictions)

    def mean(self, metric: str) -> float:
        """NaN where the metric is not defined."""
        mean = self.scores[metric]["mean"]
        return math.nan if mean is None else float(mean)


@dataclass(frozen=True)
class Comparison:
    """Rows on the same items.

    Attributes:
        title: the test's name; where two comparisons have the same, also whose predictions it has.
        items: the test set.
        metric: that is compared.
        reference: the row that others are compared with.
        rows: variants, controls, baselines, the constant one last.
        notes: why runs are not among the rows, why there are no intervals, what was left out.
    """

    title: str
    items: TestSet
    metric: str
    reference: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def others(self) -> list[str]:
        """The metrics that are not compared and that all rows have: older runs may lack some."""
        others = [metric for metric in METRICS[self.items.task] if metric != self.metric]
        return [metric for metric in others if all(metric in row.scores for row in self.rows)]


def compare(
    runs: Sequence[FinishedRun],
    *,
    metric: str | None = None,
    reference: str | None = None,
    test: str | None = None,
    update: Update = lambda fraction: None,
) -> list[Comparison]:
    """A comparison for each set of items.

    Args:
        runs: with names that differ.
        metric: of the tests' tasks; by default each test's deciding one.
        reference: a row's name; by default the first row of each comparison. A comparison without
            that row takes its first, and says so.
        test: this one alone.
        update: called with the fraction of the work that is done.

    Raises:
        UsageError: no such metric, row or test, or no test at all.
        CorruptError: predictions are missing or damaged, or do not fit the results.
    """
    every = [one for run in runs for one in (run, *run.controls())]
    tests = list(dict.fromkeys(name for run in every for name in run.tests))
    if not tests:
        raise UsageError(f"{', '.join(run.name for run in runs)}: no test of these has a table")
    if test is not None and test not in tests:
        raise UsageError(f"no test {test!r}; there are {', '.join(tests)}")
    groups = group_tests(every, tests if test is None else [test])
    titles = [group.name for group in groups]
    comparisons = []
    for group, title in zip(groups, titles, strict=True):
        chosen = metric or group.items.metric
        metrics = METRICS[group.items.task]
        if chosen not in metrics:
            raise UsageError(
                f"test {title} has no metric {chosen!r}; there are {', '.join(metrics)}"
            )
        if titles.count(title) > 1:
            title += f" ({'; '.join(run.label for run in group.tests)})"
        rows = tuple(_rows(group, chosen, prefixed=len(runs) > 1))
        notes = (*group.notes(groups, every), *_notes_of_runs(group))
        comparisons.append(Comparison(title, group.items, chosen, "", rows, notes))
    predicted = [[*_predictions(one)] for one in comparisons]
    if reference is not None and not any(reference in names for names in predicted):
        every_name = dict.fromkeys(name for names in predicted for name in names)
        raise UsageError(f"no row {reference!r} to compare with; there are {', '.join(every_name)}")
    for number, (first, *others) in enumerate(predicted):

        def report(fraction: float, done: int = number) -> None:
            update((done + fraction) / len(comparisons))

        one = replace(comparisons[number], reference=reference or first)
        if one.reference not in (first, *others):
            note = f"{reference} has no predictions here: differences are to {first}"
            one = replace(one, reference=first, notes=(*one.notes, note))
        comparisons[number] = _with_differences(one, report)
    return comparisons


def _predictions(comparison: Comparison) -> dict[str, Array]:
    """Row -> its predictions, of the rows that have some."""
    rows = comparison.rows
    return {row.name: row.predictions for row in rows if row.predictions is not None}


def _rows(group: TestGroup, metric: str, prefixed: bool) -> list[Row]:
    """Variants, controls, baselines, the constant; a baseline that all runs share is one row."""
    variants: list[Row] = []
    baselines: dict[str, list[Row]] = {}
    for run, predictions in group.predictions.items():
        order = item_order(group.items, predictions.items)
        prefix = (f"{run.name}: " if prefixed else "") + (f"{run.control}, " if run.control else "")
        for name, values in predictions.variants.items():
            scores = _scores(group, run, "variants", name)
            part: Part = "control" if run.control else "variant"
            variants.append(Row(prefix + name, part, scores, values[:, order]))
        for name, values in predictions.baselines.items():
            # What is stored is the constant that suits the deciding metric, and no other.
            stored = name != CONSTANT or metric == predictions.items.metric
            scores = _scores(group, run, "baselines", name)
            row = Row(prefix + name, "baseline", scores, values[:, order] if stored else None)
            baselines.setdefault(name, []).append(row)
    rows = sorted(variants, key=lambda row: row.part == "control")
    for name in sorted(baselines, key=lambda name: name == CONSTANT):
        first, *rest = baselines[name]
        shared = rest and all(_same(first, row) for row in rest)
        rows += [replace(first, name=name)] if shared else baselines[name]
    return rows


def _notes_of_runs(group: TestGroup) -> list[str]:
    """What the runs noted of the test; older versions noted nothing."""
    noted = [run.tests[test].get("notes") for run, test in group.tests.items()]
    notes = [note for some in noted for note in some or ()]
    return [*notes, *group.items.left_out()] if None in noted else notes


def _scores(group: TestGroup, run: FinishedRun, part: str, name: str) -> Mapping[str, Any]:
    """As results.json has them; without intervals of too few groups, which older versions wrote."""
    test, items = run.tests[group.tests[run]], group.items
    try:
        if name == CONSTANT:
            return {metric: {"mean": value} for metric, value in test[CONSTANT].items()}
        scores: Mapping[str, Any] = test[part][name]
    except KeyError:
        raise CorruptError(
            f"{run.path}: has predictions of {name} on test {group.tests[run]}, and no "
            "scores in results.json; remove that file and run `finetune` again"
        ) from None
    few = [m for m in METRICS[items.task] if too_few(items.groups, counted=items.counted(m))]
    bare = {m: {k: scores[m][k] for k in ("mean", "std")} for m in few if m in scores}
    return {**scores, **bare}


def _same(a: Row, b: Row) -> bool:
    if a.scores != b.scores or a.predictions is None or b.predictions is None:
        return a.scores == b.scores
    return np.array_equal(a.predictions, b.predictions)


def _with_differences(comparison: Comparison, update: Update) -> Comparison:
    """All rows scored on the same draws, with notes on their intervals."""
    items, metric = comparison.items, comparison.metric
    few = too_few(items.groups, items.grouping, items.counted(metric))
    predictions = _predictions(comparison)
    draws: dict[str, Floats] = {}
    if not few:
        scores = _scores_of_draws(items, metric, [*predictions.values()], update)
        draws = dict(zip(predictions, scores.T, strict=True))
    base = next(row.mean(metric) for row in comparison.rows if row.name == comparison.reference)
    rows, notes = [], [*comparison.notes, *([few] if few else [])]
    for row in comparison.rows:
        mean, difference = row.mean(metric), None
        main = {key: x for key, x in row.scores[metric].items() if key in ("mean", "std")}
        if row.name in draws and math.isfinite(mean):
            interval = percentile_interval(draws[row.name])
            main |= interval.to_json()
            notes += [f"{row.name}: {interval.note}"] if interval.note else []
        compared = row.name in predictions and row.name != comparison.reference
        if compared and math.isfinite(mean - base):
            difference = {"mean": mean - base}
            if not few:
                gaps = draws[row.name] - draws[comparison.reference]
                interval = percentile_interval(gaps)
                if interval.low is not None and interval.high is not None:
                    ends = {"low": interval.low, "high": interval.high}
                    difference |= {**ends, "p": _p_value(gaps)}
        rows.append(replace(row, scores={**row.scores, metric: main}, difference=difference))
    return replace(comparison, rows=tuple(rows), notes=tuple(dict.fromkeys(notes)))


def _scores_of_draws(
    items: TestSet, metric: str, predictions: Sequence[Array], update: Update
) -> Floats:
    """(DRAWS, R) score, mean over seeds, of each of R predictions (S, N, ...) on each draw."""
    scores = np.empty((DRAWS, len(predictions)))
    for number, drawn in enumerate(resamples(items.groups, draws=DRAWS)):
        scores[number] = [
            np.mean([items.score(metric, p, drawn) for p in ps]) for ps in predictions
        ]
        update((number + 1) / DRAWS)
    return scores


def _p_value(gaps: Floats) -> float:
    """See `Row.difference`; draws that have no score are left out."""
    gaps = gaps[np.isfinite(gaps)]
    rarer = min((gaps <= 0).sum(), (gaps >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(gaps) + 1))
