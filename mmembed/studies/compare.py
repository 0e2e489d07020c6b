"""Methods side by side: rows of several runs on the same items, and their paired differences.

In each draw of the bootstrap all rows are scored on the same groups (speakers, videos, dialogues),
so that what makes a group easy or hard for all of them cancels in the difference of two rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.errors import CorruptError, UsageError
from mmembed.metrics.bootstrap import percentile_interval, resamples, too_few
from mmembed.studies.finished_runs import (
    Part,
    RunPredictions,
    Sheet,
    StudyRun,
    in_order,
    sheets_of,
    sources_of,
)
from mmembed.studies.scoring import DRAWS, METRICS, Array, TestSet, written

Floats = NDArray[np.float64]
Update = Callable[[float], object]

TRIVIAL: Final = "trivial"  # the baseline that studies write by this name


@dataclass(frozen=True)
class Difference:
    """How far a row is from the reference, in the measure's units; above 0 where it has more.

    Attributes:
        mean: of the row over its seeds, minus that of the reference over its own.
        low: of the 95 % percentile interval over draws of groups; None where there is no interval.
        high: likewise.
        p: two-sided bootstrap p-value 2 (min(a, b) + 1) / (draws + 1), at most 1, where the
            difference is at or below zero in `a` draws and at or above zero in `b`. It is of one
            difference: nothing is corrected for how many rows a table has. None where there is no
            interval.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        name: "run: variant", or the variant where there is one run.
        part: what it is; baselines include the trivial answer.
        seeds: how many its means are over.
        scores: measure -> {"mean", "std"}, with "low" and "high" of the table's measure; where
            classes or labels have names also "f1", name -> F1.
        difference: from the reference; None for itself, where the measure is not defined, and for a
            trivial answer to another measure than the deciding one, of which no predictions are
            stored.
    """

    name: str
    part: Part
    seeds: int
    scores: Mapping[str, Any]
    difference: Difference | None


@dataclass(frozen=True)
class Table:
    """Rows on the same items.

    Attributes:
        title: the test's name; where two tables have the same, also whose answers it has.
        held: its items.
        measure: that is compared.
        reference: the row that others are compared with.
        lines: variants, controls, baselines, the trivial answer last.
        notes: why runs are not in this table, why there are no intervals, what was left out.
    """

    title: str
    held: TestSet
    measure: str
    reference: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def others(self) -> list[str]:
        """The measures that do not decide and that all lines have: older runs may lack some."""
        known = [m for m in METRICS[self.held.task] if m != self.measure]
        return [m for m in known if all(m in line.scores for line in self.lines)]


@dataclass(frozen=True)
class _Row:
    """A line to be; without predictions (S, N, ...) where there are none for the measure."""

    name: str
    part: Part
    scores: Mapping[str, Any]
    predicted: Array | None


def compare(
    runs: Sequence[StudyRun],
    *,
    measure: str | None = None,
    reference: str | None = None,
    test: str | None = None,
    update: Update = lambda share: None,
) -> list[Table]:
    """A table for each set of items.

    Args:
        runs: with names that differ.
        measure: of the tests' tasks; by default each test's deciding one.
        reference: a row's name; by default the first row of each table. A table without that row
            takes its first, and says so.
        test: this one alone.
        update: told the share of the work that is done.

    Raises:
        UsageError: no such measure, row or test, or no test at all.
        CorruptError: predictions are missing or damaged, or do not fit the results.
    """
    sources = sources_of(runs)
    tests = list(dict.fromkeys(name for source in sources for name in source.tests))
    if not tests:
        raise UsageError(f"{', '.join(run.name for run in runs)}: no test of these has a table")
    if test is not None and test not in tests:
        raise UsageError(f"no test {test!r}; there are {', '.join(tests)}")
    sheets = sheets_of(sources, tests if test is None else [test])
    drafts = []
    for sheet in sheets:
        chosen = measure or sheet.held.measure
        if chosen not in (known := METRICS[sheet.held.task]):
            raise UsageError(
                f"test {sheet.name} has no measure {chosen!r}; there are {', '.join(known)}"
            )
        rows = _rows(sheet, chosen)
        notes = (*sheet.notes(sheets, sources), *_told(sheet))
        drafts.append((Table(sheet.name, sheet.held, chosen, "", (), notes), rows))
    answered = [[row.name for row in rows if row.predicted is not None] for _, rows in drafts]
    if reference is not None and not any(reference in names for names in answered):
        every = dict.fromkeys(name for names in answered for name in names)
        raise UsageError(f"no row {reference!r} to compare with; there are {', '.join(every)}")
    titles = [sheet.name for sheet in sheets]
    tables = []
    for number, (draft, rows) in enumerate(drafts):

        def report(share: float, done: int = number) -> None:
            update((done + share) / len(drafts))

        title, base, notes = draft.title, reference, draft.notes
        if titles.count(title) > 1:
            title += f" ({'; '.join(sheets[number].labels)})"
        if base not in answered[number]:
            base = answered[number][0]
            if reference is not None:
                notes += (f"{reference} has no answers here: differences are to {base}",)
        lines, more = _lines(draft.held, draft.measure, rows, base, report)
        notes = tuple(dict.fromkeys((*notes, *more)))
        tables.append(replace(draft, title=title, reference=base, lines=lines, notes=notes))
    return tables


def _rows(sheet: Sheet, measure: str) -> list[_Row]:
    """Variants, controls, baselines, the trivial answer; a baseline that all share is one row."""
    variants: list[_Row] = []
    plain: dict[str, list[_Row]] = {}
    for answers in sheet.answers:
        order, scored = in_order(sheet.held, answers.scored.held), answers.scored
        prefix, part = answers.source.prefix, answers.source.part
        for name, values in scored.variants.items():
            scores = _scores(answers, sheet.held, "variants", name)
            variants.append(_Row(prefix + name, part, scores, values[:, order]))
        for name, values in scored.baselines.items():
            # What is stored is the constant that suits the deciding measure, and no other.
            known = name != TRIVIAL or measure == scored.held.measure
            scores = _scores(answers, sheet.held, "baselines", name)
            row = _Row(prefix + name, "baseline", scores, values[:, order] if known else None)
            plain.setdefault(name, []).append(row)
    variants.sort(key=lambda row: row.part == "control")
    for name in sorted(plain, key=lambda name: name == TRIVIAL):
        first, *rest = plain[name]
        shared = rest and all(_same(first, row) for row in rest)
        variants += [replace(first, name=name)] if shared else plain[name]
    return variants


def _told(sheet: Sheet) -> list[str]:
    """What the runs told of the test; older ones told nothing."""
    told = [answers.source.tests[answers.test].get("notes") for answers in sheet.answers]
    known = [note for notes in told if notes is not None for note in notes]
    return known if all(notes is not None for notes in told) else [*known, *sheet.held.left_out()]


def _scores(answers: RunPredictions, held: TestSet, part: str, name: str) -> Mapping[str, Any]:
    """As results.json has them; less intervals of too few groups, which older versions wrote."""
    told = answers.source.tests[answers.test]
    try:
        if name == TRIVIAL:
            return {measure: {"mean": value} for measure, value in told[TRIVIAL].items()}
        scores: Mapping[str, Any] = told[part][name]
    except KeyError:
        raise CorruptError(
            f"{answers.source.folder}: has predictions of {name} on test {answers.test}, and no "
            "scores in results.json; remove that file and run `finetune` again"
        ) from None
    few = [m for m in METRICS[held.task] if too_few(held.groups, counted=held.counted(m))]
    bare = {m: {k: scores[m][k] for k in ("mean", "std")} for m in few if m in scores}
    return {**scores, **bare}


def _same(a: _Row, b: _Row) -> bool:
    if a.scores != b.scores or a.predicted is None or b.predicted is None:
        return a.scores == b.scores
    return np.array_equal(a.predicted, b.predicted)


def _lines(
    held: TestSet, measure: str, rows: Sequence[_Row], reference: str, update: Update
) -> tuple[tuple[Line, ...], list[str]]:
    """All rows, scored on the same draws; and notes on their intervals."""
    few = too_few(held.groups, held.grouping, held.counted(measure))
    answers = {row.name: row.predicted for row in rows if row.predicted is not None}
    draws: dict[str, Floats] = {}
    if not few:
        scores = _drawn(held, measure, list(answers.values()), update)
        draws = dict(zip(answers, scores.T, strict=True))
    base = _mean(next(row for row in rows if row.name == reference), measure)
    lines, notes = [], [few] if few else []
    for row in rows:
        told, gap, mean = row.scores[measure], None, _mean(row, measure)
        main = {name: told[name] for name in ("mean", "std") if name in told}
        if row.name in draws and math.isfinite(mean):
            interval = percentile_interval(draws[row.name])
            main |= written(interval)
            notes += [f"{row.name}: {interval.note}"] if interval.note else []
        if row.name in answers and row.name != reference and math.isfinite(mean - base):
            gap = Difference(mean - base, None, None, None)
            if not few:
                gaps = draws[row.name] - draws[reference]
                interval = percentile_interval(gaps)
                p = None if interval.low is None else _p_value(gaps)
                gap = Difference(mean - base, interval.low, interval.high, p)
        seeds = 1 if row.predicted is None else len(row.predicted)
        lines.append(Line(row.name, row.part, seeds, {**row.scores, measure: main}, gap))
    return tuple(lines), notes


def _mean(row: _Row, measure: str) -> float:
    """NaN where the measure is not defined."""
    mean = row.scores[measure]["mean"]
    return math.nan if mean is None else float(mean)


def _drawn(held: TestSet, measure: str, answers: Sequence[Array], update: Update) -> Floats:
    """(DRAWS, R) score, mean over seeds, of each of R answers (S, N, ...) on each draw."""
    scores = np.empty((DRAWS, len(answers)))
    for number, items in enumerate(resamples(held.groups, draws=DRAWS)):
        scores[number] = [np.mean([held.score(measure, p, items) for p in ps]) for ps in answers]
        update((number + 1) / DRAWS)
    return scores


def _p_value(gaps: Floats) -> float:
    """See `Difference`; draws that have no score are left out."""
    known = gaps[np.isfinite(gaps)]
    rarer = min((known <= 0).sum(), (known >= 0).sum())
    return min(1.0, 2 * (int(rarer) + 1) / (len(known) + 1))
