"""Dialogues of the test split: what was predicted, and what each turn was read beside."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmembed.report import plots
from mmembed.report.html import DASH, Html, Section, collapsed, join, number, table, tag
from mmembed.report.run_folder import Json, read_part


def conversations(folder: Path) -> Section | None:
    """Some dialogues as SDT saw them; None where the run kept none.

    Args:
        folder: of the run, with the explanations.json of `mmembed.studies.sdt`.
    """
    dialogues = read_part(folder / "explanations.json").get("dialogues")
    if not dialogues:
        return None
    return Section(
        "Dialogues",
        "The first turns of test dialogues of many emotions, and what SDT, as trained with the "
        "first seed, made of them; wrong predictions are marked. The weight of a stream is its "
        "mean multimodal gate. Attention is the mean over heads: how much each turn, down the "
        "side, took of each turn along the bottom; over the whole dialogue, a row sums to 1.",
        [_dialogue(dialogue) for dialogue in dialogues],
    )


def _dialogue(dialogue: Json) -> Html:
    turns = dialogue["turns"]
    streams = list(turns[0]["gates"])
    shown = streams if len(streams) > 1 else []  # a single one has all the weight
    rows = [
        (
            f"{place} {turn['speaker'] or DASH}: {turn['text'] or DASH}",
            turn["true"] or DASH,
            _predicted(turn),
            *(number(turn["gates"][stream]) for stream in shown),
        )
        for place, turn in enumerate(turns)
    ]
    names = [f"{place} {turn['speaker'] or ''}".strip() for place, turn in enumerate(turns)]
    within: list[Html] = []
    across: list[Html] = []
    for pair, weights in dialogue["attention"].items():
        source, query = pair.split("_to_")
        picture = plots.heat(
            weights,
            names,
            names,
            (f"{query} of turn", f"{source} of turn"),
            "attention",
            f"attention of {query} to {source}, {dialogue['name']}",
            max(float(np.max(weights)), 1e-3),
        )
        (within if source == query else across).append(picture)
    return join(
        tag("h3", dialogue["name"]),
        table(("Turn", "True", "Predicted", *(f"Weight of {s}" for s in shown)), rows),
        within,
        collapsed("Attention across streams", across) if across else "",
    )


def _predicted(turn: Json) -> Html:
    wrong = turn["true"] not in (None, turn["predicted"])
    return tag("del" if wrong else "span", turn["predicted"])
