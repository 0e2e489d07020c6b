"""The report of a study: what `mmembed finetune` left in a folder.

All studies have tests. Layer anchoring adds similarities of layers, SDT explained dialogues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.config import read_json
from mmembed.report import compare, plots
from mmembed.report.render import write_page
from mmembed.report.run_folder import Json, flatten, read_part
from mmembed.report.score_table import DASH, Cell, number
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
        dialogues=_dialogues(folder),
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


def _dialogues(folder: Path) -> list[Json]:
    """Dialogues of the test split as SDT saw them; none where the run kept no explanations.json."""
    return [
        _dialogue(one) for one in read_part(folder / "explanations.json").get("dialogues") or ()
    ]


def _dialogue(dialogue: Json) -> Json:
    turns = dialogue["turns"]
    streams = list(turns[0]["gates"])
    streams = streams if len(streams) > 1 else []  # a single one has all the weight
    names = [f"{index} {turn['speaker'] or ''}".strip() for index, turn in enumerate(turns)]
    attention: dict[str, list[plots.Plot]] = {"within": [], "across": []}
    for pair, weights in dialogue["attention"].items():
        source, query = pair.split("_to_")
        plot = plots.heat(
            weights,
            names,
            names,
            (f"{query} of turn", f"{source} of turn"),
            "attention",
            f"attention of {query} to {source}, {dialogue['name']}",
            max(float(np.max(weights)), 1e-3),
        )
        attention["within" if source == query else "across"].append(plot)
    return {
        "name": dialogue["name"],
        "head": ["Turn", "True", "Predicted", *(f"Weight of {stream}" for stream in streams)],
        "rows": [_row(index, turn, streams) for index, turn in enumerate(turns)],
        **attention,
    }


def _row(index: int, turn: Json, streams: Sequence[str]) -> list[object]:
    wrong = turn["true"] not in (None, turn["predicted"])
    return [
        f"{index} {turn['speaker'] or DASH}: {turn['text'] or DASH}",
        turn["true"] or DASH,
        Cell(turn["predicted"], style="wrong" if wrong else ""),
        *(number(turn["gates"][stream]) for stream in streams),
    ]
