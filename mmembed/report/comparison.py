"""Tables of methods side by side, as sections of a page and as a page of their own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mmembed import __version__
from mmembed.data.atomic import atomic_file
from mmembed.recipes.comparison import Difference, Line, Table
from mmembed.recipes.finished import StudyRun
from mmembed.recipes.scoring import LOWER_IS_BETTER
from mmembed.report import plots
from mmembed.report.data import Score
from mmembed.report.emotion import cell
from mmembed.report.markup import DASH, Html, Section, cards, join, number, table, tag, words
from mmembed.report.page import page


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
    return number(best), f"{words(compared.measure)}, {compared.title}", note


def section(compared: Table) -> Section:
    """The table of a test, bars with intervals, and F1 of each class or label."""
    measure, title, held = compared.measure, compared.title, compared.held
    better = "the lower the better" if measure in LOWER_IS_BETTER else "the higher the better"
    content: list[object] = [tag("p", note, class_="missing") for note in compared.notes]
    content += [
        _scores(compared),
        tag("h3", f"{words(measure).capitalize()} with 95 % intervals"),
        plots.bars(
            {line.name: _score(line, measure) for line in compared.lines}, f"{measure} ({title})"
        ),
    ]
    if held.names:
        kind = "class" if held.task == "classes" else "label"
        content += [tag("h3", f"F1 of each {kind}"), _single_f1(compared)]
    return Section(
        f"Scores: {title}",
        f"{len(held.keys):,} items in {len({*held.groups}):,} groups (speakers, videos or "
        f"dialogues). {words(measure).capitalize()}, {better}: mean and standard deviation over "
        "seeds, below them the 95 % bootstrap interval over groups. Differences are to "
        f"{compared.reference}, with both scored on the same draws of groups; p is two-sided, of "
        "one difference, not corrected for the number of rows. The best variant is bold.",
        content,
    )


def _scores(compared: Table) -> Html:
    measure, others = compared.measure, compared.others
    shown = [measure, *others]
    competing = [line for line in compared.lines if line.part == "variant"]
    best = {name: _best(name, [_score(line, name).mean for line in competing]) for name in shown}

    def cells(line: Line) -> list[Html]:
        return [
            cell(
                _score(line, name),
                in_percent=False,
                best=best[name] if line.part == "variant" else math.nan,
            )
            for name in shown
        ]

    body = []
    for line in compared.lines:
        first, *rest = cells(line)
        body.append((_name(line), first, *_difference(line.difference), *rest))
    return table(("", words(measure), "difference", "p", *map(words, others)), body)


def _difference(gap: Difference | None) -> tuple[Html, str]:
    """The cells of the difference and of its p-value."""
    if gap is None:
        return Html(DASH), DASH
    interval = tag("small", f"{gap.low:+.3f} to {gap.high:+.3f}")
    return join(f"{gap.mean:+.3f}", interval), number(gap.p)


def _single_f1(compared: Table) -> Html:
    """A row for each class or label, a column for each method that has them."""
    lines = [line for line in compared.lines if "f1" in line.scores]
    body = []
    for name in compared.held.names:
        values = [line.scores["f1"][name] for line in lines]
        best = max(v for v, line in zip(values, lines, strict=True) if line.part == "variant")
        cells = [
            tag("b" if value == best and line.part == "variant" else "span", number(value))
            for value, line in zip(values, lines, strict=True)
        ]
        body.append((name, *cells))
    return table(("", *(line.name for line in lines)), body)


def _name(line: Line) -> object:
    return line.name if line.part == "variant" else tag("span", line.name, class_="sub")


def _score(line: Line, measure: str) -> Score:
    """Without a deviation where there is one seed."""
    score = Score.of(line.scores[measure])
    return score if line.seeds > 1 else replace(score, std=math.nan)


def _best(measure: str, means: Sequence[float]) -> float:
    known = [mean for mean in means if math.isfinite(mean)]
    return (min if measure in LOWER_IS_BETTER else max)(known, default=math.nan)
