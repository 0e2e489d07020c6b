"""The report of a study: what `mmembed finetune` left in a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mmembed import __version__
from mmembed.config import read_json
from mmembed.report import compare
from mmembed.report.html import Html, Section, cards, collapsed, table, tag
from mmembed.report.layer_anchor import layer_similarities
from mmembed.report.page import page
from mmembed.report.run_folder import flatten
from mmembed.report.sdt import conversations
from mmembed.studies.compare import compare as compare_runs
from mmembed.studies.finished_runs import FinishedRun


def _notes(run: FinishedRun) -> Section | None:
    """What a study has left out, and why."""
    notes = run.results.get("notes")
    told = [tag("p", note, class_="missing") for note in notes or ()]
    return Section("Notes", "What was left out of this study.", told) if told else None


PARTS: Final[Sequence[Callable[[FinishedRun], Section | None]]] = (
    _notes,
    lambda run: conversations(run.path),
    lambda run: layer_similarities(run.results),
)
"""What some studies have beside their scores: sections that are None where a run has no such thing.
They stand between the scores and the configuration, in this order."""


def is_study(folder: Path) -> bool:
    """Whether a folder holds results of tests."""
    results = folder / "results.json"
    return results.is_file() and "tests" in read_json(results)


def study_page(folder: Path) -> Html:
    """Scores and paired differences to the first variant, its own parts, configuration.

    Raises:
        UsageError: it is no finished run.
        CorruptError: a part is damaged.
    """
    run = FinishedRun.read(folder)
    tables = compare_runs([run]) if run.results["tests"] else []
    parts = [section for part in PARTS if (section := part(run)) is not None]
    return page(
        title=run.name,
        summary=cards([*map(compare.best_card, tables), *_sizes(run)]),
        sections=[*map(compare.section, tables), *parts, _configuration(run)],
        note=f"Made by mmembed {__version__}. This file is complete in itself.",
    )


def _sizes(run: FinishedRun) -> list[tuple[str, str, str]]:
    items, seeds = run.results.get("items") or {}, run.results.get("seeds") or []
    tests = [f"{name} {test['items']:,}" for name, test in run.results["tests"].items()]
    rest = [f"{split} {count:,}" for split, count in items.items() if split != "train"]
    return [
        (f"{items.get('train', 0):,}", "training items", ", ".join([*rest, *tests])),
        (f"{len(seeds)}", "seeds", "of each variant"),
    ]


def _configuration(run: FinishedRun) -> Section:
    return Section(
        "Configuration",
        "Everything that defines this run, as it was resolved when it started.",
        [collapsed("Configuration", table(("Name", "Value"), flatten(run.config)))],
    )
