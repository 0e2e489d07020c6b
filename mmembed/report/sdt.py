"""Dialogues of the test split as SDT saw them: predictions, stream weights and attention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmembed.report import plots
from mmembed.report.run_folder import Json, read_part
from mmembed.report.score_table import DASH, Cell, number


def dialogues(folder: Path) -> list[Json]:
    """What the report shows of some dialogues; none where the run kept none.

    Args:
        folder: of the run, with the explanations.json of `mmembed.studies.sdt`.
    """
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
