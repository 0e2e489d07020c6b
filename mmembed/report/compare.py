"""Tables of methods side by side, as sections of a page and as a page of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from mmembed import __version__
from mmembed.io.atomic import atomic_file
from mmembed.metrics.bootstrap import MIN_GROUPS, count_groups, num_groups, plural
from mmembed.report import plots
from mmembed.report.emotion import SENTIMENT_COLUMNS, cell
from mmembed.report.html import DASH, Html, Section, cards, join, number, table, tag, words
from mmembed.report.page import page
from mmembed.report.run_folder import Score
from mmembed.studies.compare import Comparison, Row
from mmembed.studies.finished_runs import FinishedRun
from mmembed.studies.scoring import LOWER_IS_BETTER

NAMES: Final[Mapping[str, str]] = {
    **SENTIMENT_COLUMNS,
    "weighted_f1": "Weighted F1",
    "uar": "UAR",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "micro_f1": "Micro F1",
    "jaccard": "Jaccard",
    "auroc": "AUROC",
}


def write_comparison(
    runs: Sequence[FinishedRun], comparisons: Sequence[Comparison], out: Path
) -> Path:
    """Write the page; the same runs give the same bytes."""
    html = page(
        title=f"Comparison of {', '.join(run.name for run in runs)}",
        summary=cards(map(best_card, comparisons)),
        sections=[section(one) for one in comparisons],
        note=f"Made by mmembed {__version__}. This file is complete in itself.",
    )
    with atomic_file(out) as file:
        file.write(html.encode("utf-8", "backslashreplace"))  # a name may be no text
    return out


def best_card(comparison: Comparison) -> tuple[str, str, str]:
    """The best variant of a test, beside the constant baseline."""
    variants = [row for row in comparison.rows if row.part == "variant"]
    best = _best(comparison.metric, [_score(row, comparison.metric).mean for row in variants])
    names = [row.name for row in variants if _score(row, comparison.metric).mean == best]
    which = f"best of {len(variants)}" if len(variants) > 1 else "one method"
    constant = number(_score(comparison.rows[-1], comparison.metric).mean)
    note = f"{', '.join(names)} ({which}); constant {constant}"
    return number(best), f"{_called(comparison.metric)}, {comparison.title}", note


def section(comparison: Comparison) -> Section:
    """The table of a test, bars with intervals, and F1 of each class or label."""
    metric, title, items = comparison.metric, comparison.title, comparison.items
    called = _called(metric)
    better = "the lower the better" if metric in LOWER_IS_BETTER else "the higher the better"
    means = {row.name: _score(row, metric) for row in comparison.rows}
    content: list[object] = [tag("p", note, class_="missing") for note in comparison.notes]
    content += [
        _differences(comparison),
        tag("h3", f"{called} with 95 % intervals"),
        plots.bars(means, f"{called} ({title})"),
        tag("h3", "Other metrics"),
        _others(comparison),
    ]
    if items.names:
        kind = "class" if items.task == "classes" else "label"
        content += [tag("h3", f"F1 of each {kind}"), _single_f1(comparison)]
    groups = plural(items.grouping)
    return Section(
        f"Scores: {title}",
        f"{count_groups(len(items.keys), 'item')} of "
        f"{count_groups(num_groups(items.groups), items.grouping)}. {called}, {better}: mean and "
        f"standard deviation over seeds, below them the 95 % bootstrap interval over {groups}. "
        f"Differences are to {comparison.reference}, with both scored on the same draws of "
        f"{groups}; p is two-sided, of one difference, not corrected for the number of rows. Of "
        f"few groups, intervals come out too narrow, and of less than {MIN_GROUPS} there is none. "
        "The best variant is bold.",
        content,
    )


def _differences(comparison: Comparison) -> Html:
    """The compared metric, and how far each row is from the reference."""
    cells = _cells(comparison, comparison.metric)
    body = [
        (_name(row), cell, *_difference(row.difference))
        for row, cell in zip(comparison.rows, cells, strict=True)
    ]
    rests = (_rests_name(comparison), _rests(comparison, comparison.metric), "", "")
    return table(("", _called(comparison.metric), "difference", "p"), [*body, rests])


def _others(comparison: Comparison) -> Html:
    columns = [_cells(comparison, metric) for metric in comparison.others]
    body = [
        (_name(row), *cells)
        for row, cells in zip(comparison.rows, zip(*columns, strict=True), strict=True)
    ]
    rests = (_rests_name(comparison), *(_rests(comparison, metric) for metric in comparison.others))
    return table(("", *map(_called, comparison.others)), [*body, rests])


def _rests_name(comparison: Comparison) -> Html:
    return tag("span", f"items / {plural(comparison.items.grouping)}", class_="sub")


def _rests(comparison: Comparison, metric: str) -> str:
    """How many items and groups a metric rests on."""
    counted = comparison.items.counted(metric)
    groups = num_groups(comparison.items.groups, counted)
    return f"{int(counted.sum()):,} / {groups:,}"


def _cells(comparison: Comparison, metric: str) -> list[Html]:
    """A column; its best variant is bold."""
    scores = [_score(row, metric) for row in comparison.rows]
    competes = [row.part == "variant" for row in comparison.rows]
    best = _best(metric, [s.mean for s, one in zip(scores, competes, strict=True) if one])
    return [
        cell(score, in_percent=False, best=best if one else math.nan)
        for score, one in zip(scores, competes, strict=True)
    ]


def _difference(gap: Mapping[str, float] | None) -> tuple[Html, str]:
    """The cells of the difference and of its p-value."""
    if gap is None:
        return Html(DASH), DASH
    if "low" not in gap:
        return Html(f"{gap['mean']:+.3f}"), DASH
    interval = tag("small", f"{gap['low']:+.3f} to {gap['high']:+.3f}")
    return join(f"{gap['mean']:+.3f}", interval), number(gap["p"])


def _single_f1(comparison: Comparison) -> Html:
    """A row for each class or label, a column for each method that has them, and the counts."""
    counts = comparison.items.label_counts()
    rows = [row for row in comparison.rows if "f1" in row.scores]
    body = []
    for name in comparison.items.names:
        values = [Score.of(row.scores["f1"][name]).mean for row in rows]
        competing = [v for v, row in zip(values, rows, strict=True) if row.part == "variant"]
        best = _best("f1", competing)
        cells = [
            tag("b" if value == best and row.part == "variant" else "span", number(value))
            for value, row in zip(values, rows, strict=True)
        ]
        one = counts[name]
        body.append((name, *cells, one["positives"], one["items"], one["groups"]))
    rests = ("items that have it", "of", plural(comparison.items.grouping))
    return table(("", *(row.name for row in rows), *rests), body)


def _called(metric: str) -> str:
    return NAMES.get(metric, words(metric))


def _name(row: Row) -> object:
    return row.name if row.part == "variant" else tag("span", row.name, class_="sub")


def _score(row: Row, metric: str) -> Score:
    """Without a deviation where there is one seed."""
    score = Score.of(row.scores[metric])
    return score if row.seeds > 1 else replace(score, std=math.nan)


def _best(metric: str, means: Sequence[float]) -> float:
    known = [mean for mean in means if math.isfinite(mean)]
    return (min if metric in LOWER_IS_BETTER else max)(known, default=math.nan)
