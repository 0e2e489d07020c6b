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
from mmembed.studies.compare import Difference, Line, Table
from mmembed.studies.finished_runs import StudyRun
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


def write_comparison(runs: Sequence[StudyRun], tables: Sequence[Table], out: Path) -> Path:
    """Write the page; the same runs give the same bytes."""
    html = page(
        title=f"Comparison of {', '.join(run.name for run in runs)}",
        summary=cards(map(best_card, tables)),
        sections=[section(one) for one in tables],
        note=f"Made by mmembed {__version__}. This file is complete in itself.",
    )
    with atomic_file(out) as file:
        file.write(html.encode("utf-8", "backslashreplace"))  # a name may be no text
    return out


def best_card(compared: Table) -> tuple[str, str, str]:
    """The best variant of a test, beside the trivial answer."""
    variants = [line for line in compared.lines if line.part == "variant"]
    best = _best(compared.measure, [_score(line, compared.measure).mean for line in variants])
    names = [line.name for line in variants if _score(line, compared.measure).mean == best]
    which = f"best of {len(variants)}" if len(variants) > 1 else "one method"
    trivial = number(_score(compared.lines[-1], compared.measure).mean)
    note = f"{', '.join(names)} ({which}); trivial {trivial}"
    return number(best), f"{_called(compared.measure)}, {compared.title}", note


def section(compared: Table) -> Section:
    """The table of a test, bars with intervals, and F1 of each class or label."""
    measure, title, held = compared.measure, compared.title, compared.held
    called = _called(measure)
    better = "the lower the better" if measure in LOWER_IS_BETTER else "the higher the better"
    means = {line.name: _score(line, measure) for line in compared.lines}
    content: list[object] = [tag("p", note, class_="missing") for note in compared.notes]
    content += [
        _differences(compared),
        tag("h3", f"{called} with 95 % intervals"),
        plots.bars(means, f"{called} ({title})"),
        tag("h3", "Other measures"),
        _others(compared),
    ]
    if held.names:
        kind = "class" if held.task == "classes" else "label"
        content += [tag("h3", f"F1 of each {kind}"), _single_f1(compared)]
    groups = plural(held.grouping)
    return Section(
        f"Scores: {title}",
        f"{count_groups(len(held.keys), 'item')} of "
        f"{count_groups(num_groups(held.groups), held.grouping)}. {called}, {better}: mean and "
        f"standard deviation over seeds, below them the 95 % bootstrap interval over {groups}. "
        f"Differences are to {compared.reference}, with both scored on the same draws of {groups}; "
        "p is two-sided, of one difference, not corrected for the number of rows. Of few groups, "
        f"intervals come out too narrow, and of less than {MIN_GROUPS} there is none. The best "
        "variant is bold.",
        content,
    )


def _differences(compared: Table) -> Html:
    """The measure, and how far each row is from the reference."""
    cells = _cells(compared, compared.measure)
    body = [
        (_name(line), cell, *_difference(line.difference))
        for line, cell in zip(compared.lines, cells, strict=True)
    ]
    rests = (_rests_name(compared), _rests(compared, compared.measure), "", "")
    return table(("", _called(compared.measure), "difference", "p"), [*body, rests])


def _others(compared: Table) -> Html:
    columns = [_cells(compared, measure) for measure in compared.others]
    body = [
        (_name(line), *cells)
        for line, cells in zip(compared.lines, zip(*columns, strict=True), strict=True)
    ]
    rests = (_rests_name(compared), *(_rests(compared, measure) for measure in compared.others))
    return table(("", *map(_called, compared.others)), [*body, rests])


def _rests_name(compared: Table) -> Html:
    return tag("span", f"items / {plural(compared.held.grouping)}", class_="sub")


def _rests(compared: Table, measure: str) -> str:
    """How many items and groups a measure rests on."""
    counted = compared.held.counted(measure)
    groups = num_groups(compared.held.groups, counted)
    return f"{int(counted.sum()):,} / {groups:,}"


def _cells(compared: Table, measure: str) -> list[Html]:
    """A column; its best variant is bold."""
    scores = [_score(line, measure) for line in compared.lines]
    competes = [line.part == "variant" for line in compared.lines]
    best = _best(measure, [s.mean for s, one in zip(scores, competes, strict=True) if one])
    return [
        cell(score, in_percent=False, best=best if one else math.nan)
        for score, one in zip(scores, competes, strict=True)
    ]


def _difference(gap: Difference | None) -> tuple[Html, str]:
    """The cells of the difference and of its p-value."""
    if gap is None:
        return Html(DASH), DASH
    if gap.low is None:
        return Html(f"{gap.mean:+.3f}"), DASH
    interval = tag("small", f"{gap.low:+.3f} to {gap.high:+.3f}")
    return join(f"{gap.mean:+.3f}", interval), number(gap.p)


def _single_f1(compared: Table) -> Html:
    """A row for each class or label, a column for each method that has them, and the counts."""
    counts = compared.held.label_counts()
    lines = [line for line in compared.lines if "f1" in line.scores]
    body = []
    for name in compared.held.names:
        values = [Score.of(line.scores["f1"][name]).mean for line in lines]
        competing = [v for v, line in zip(values, lines, strict=True) if line.part == "variant"]
        best = _best("f1", competing)
        cells = [
            tag("b" if value == best and line.part == "variant" else "span", number(value))
            for value, line in zip(values, lines, strict=True)
        ]
        one = counts[name]
        body.append((name, *cells, one["positives"], one["items"], one["groups"]))
    rests = ("items that have it", "of", plural(compared.held.grouping))
    return table(("", *(line.name for line in lines), *rests), body)


def _called(measure: str) -> str:
    return NAMES.get(measure, words(measure))


def _name(line: Line) -> object:
    return line.name if line.part == "variant" else tag("span", line.name, class_="sub")


def _score(line: Line, measure: str) -> Score:
    """Without a deviation where there is one seed."""
    score = Score.of(line.scores[measure])
    return score if line.seeds > 1 else replace(score, std=math.nan)


def _best(measure: str, means: Sequence[float]) -> float:
    known = [mean for mean in means if math.isfinite(mean)]
    return (min if measure in LOWER_IS_BETTER else max)(known, default=math.nan)
