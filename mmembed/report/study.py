"""The report of a study: what `mmembed finetune` left in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmembed.config import read_json
from mmembed.report import compare, plots, sdt
from mmembed.report.render import write_page
from mmembed.report.run_folder import Json, flatten
from mmembed.studies.compare import compare as compare_runs
from mmembed.studies.finished_runs import FinishedRun


def is_study(folder: Path) -> bool:
    """Whether a folder holds results of tests."""
    results = folder / "results.json"
    return results.is_file() and "tests" in read_json(results)


def write_study(folder: Path, out: Path) -> Path:
    """Write the page: scores and paired differences to the first variant, what a study adds to
    them, and the configuration.

    Raises:
        UsageError: it is no finished run.
        CorruptError: a part is damaged.
    """
    run = FinishedRun.read(folder)
    comparisons = compare_runs([run]) if run.results["tests"] else []
    items, seeds = run.results.get("items") or {}, run.results.get("seeds") or []
    sizes = [f"{split} {count:,}" for split, count in items.items() if split != "train"]
    sizes += [f"{name} {test['items']:,}" for name, test in run.results["tests"].items()]
    return write_page(
        "study.html",
        out,
        title=run.name,
        cards=[
            *map(compare.best_card, comparisons),
            (f"{items.get('train', 0):,}", "training items", ", ".join(sizes)),
            (f"{len(seeds)}", "seeds", "of each variant"),
        ],
        tests=[compare.comparison_values(one) for one in comparisons],
        notes=run.results.get("notes") or [],
        dialogues=sdt.dialogues(folder),
        similarities=similarities(run.results),
        config=list(flatten(run.config)),
    )


def similarities(results: Mapping[str, Any]) -> list[Json]:
    """How similar layers are in two languages, of layer anchoring; nothing of other studies."""
    found = []
    for one in (results.get(name) for name in ("layer_similarity", "vowel_similarity")):
        if one is not None:
            names, axes = one["layers"], (f"source: {one['source']}", f"target: {one['target']}")
            title = f"similarity of layers by {one['metric']}, {axes[0]} and {axes[1]}"
            plot = plots.heat(one["similarity"], names, names, axes, "similarity", title)
            rows = [(fold, ", ".join(group)) for fold, group in enumerate(one["groups"])]
            found.append({"metric": one["metric"], "plot": plot, "rows": rows})
    return found
