"""Tables of methods side by side: what the pages of a comparison and of a study show of a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmembed.metrics.bootstrap import MIN_GROUPS, count_groups, num_groups, plural
from mmembed.report import plots
from mmembed.report.render import write_page
from mmembed.report.run_folder import Json
from mmembed.report.score_table import (
    DASH,
    METRIC_NAMES,
    Cell,
    Score,
    ScoreRow,
    best_mean,
    number,
    score_cells,
)
from mmembed.studies.compare import Comparison
from mmembed.studies.finished_runs import FinishedRun
from mmembed.studies.scoring import LOWER_IS_BETTER


def write_comparison(
    runs: Sequence[FinishedRun], comparisons: Sequence[Comparison], out: Path
) -> Path:
    """Write the page; the same runs give the same bytes."""
    return write_page(
        "compare.html",
        out,
        title=f"Comparison of {', '.join(run.name for run in runs)}",
        cards=[best_card(one) for one in comparisons],
        tests=[comparison_values(one) for one in comparisons],
    )


def best_card(comparison: Comparison) -> tuple[str, str, str]:
    """The best variant of a test, beside the constant baseline."""
    metric, rows = comparison.metric, _rows(comparison)
    means = {row.name: row.score(metric).mean for row in rows if not row.baseline}
    best = best_mean(metric, means.values())
    names = ", ".join(name for name, mean in means.items() if mean == best)
    which = f"best of {len(means)}" if len(means) > 1 else "one method"
    constant = number(rows[-1].score(metric).mean)
    note = f"{names} ({which}); constant baseline {constant}"
    return number(best), f"{_named(metric)}, {comparison.title}", note


def comparison_values(comparison: Comparison) -> Json:
    """What the macro `scores` shows: the differences, bars, other metrics, F1 of each class."""
    rows, items, metric = _rows(comparison), comparison.items, comparison.metric
    grouping = plural(items.grouping)
    cells = score_cells(rows, [metric])
    differences = [_difference(row.difference) for row in comparison.rows]
    counts = Cell(f"items / {grouping}", style="baseline")
    return {
        "title": comparison.title,
        "notes": comparison.notes,
        "metric": _named(metric),
        "better": "lower" if metric in LOWER_IS_BETTER else "higher",
        "num_items": count_groups(len(items.keys), "item"),
        "num_groups": count_groups(num_groups(items.groups), items.grouping),
        "grouping": grouping,
        "reference": comparison.reference,
        "min_groups": MIN_GROUPS,
        "differences": [
            *((*row, *difference) for row, difference in zip(cells, differences, strict=True)),
            (counts, _counts(comparison, metric), "", ""),
        ],
        "bars": plots.bars(
            {row.name: row.score(metric) for row in rows}, f"{_named(metric)} ({comparison.title})"
        ),
        "other_names": [_named(other) for other in comparison.others],
        "others": [
            *score_cells(rows, comparison.others),
            (counts, *(_counts(comparison, other) for other in comparison.others)),
        ],
        "kind": "class" if items.task == "classes" else "label",
        "f1_names": [row.name for row in comparison.rows if "f1" in row.scores],
        "f1": _f1_rows(comparison) if items.names else [],
    }


def _rows(comparison: Comparison) -> list[ScoreRow]:
    return [
        ScoreRow(row.name, row.scores, row.part != "variant", row.seeds) for row in comparison.rows
    ]


def _named(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric.replace("_", " "))


def _counts(comparison: Comparison, metric: str) -> str:
    """How many items and groups a metric is computed from."""
    counted = comparison.items.counted(metric)
    return f"{int(counted.sum()):,} / {num_groups(comparison.items.groups, counted):,}"


def _difference(difference: Mapping[str, float] | None) -> tuple[Cell | str, str]:
    """The cells of the difference and of its p-value."""
    if difference is None:
        return DASH, DASH
    if "low" not in difference:
        return f"{difference['mean']:+.3f}", DASH
    interval = f"{difference['low']:+.3f} to {difference['high']:+.3f}"
    return Cell(f"{difference['mean']:+.3f}", interval=interval), number(difference["p"])


def _f1_rows(comparison: Comparison) -> list[list[object]]:
    """A row for each class or label: F1 of each method that has them, and how many items it has."""
    rows: list[list[object]] = []
    scored = [row for row in comparison.rows if "f1" in row.scores]
    for name, counts in comparison.items.label_counts().items():
        f1 = [(Score.of(row.scores["f1"][name]).mean, row.part == "variant") for row in scored]
        best = best_mean("f1", [mean for mean, competes in f1 if competes])
        cells = [Cell(number(m), style="best" if m == best and own else "") for m, own in f1]
        rows.append([name, *cells, counts["positives"], counts["items"], counts["groups"]])
    return rows
