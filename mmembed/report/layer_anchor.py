"""How alike the layers of a frozen encoder are in two languages, and which were anchored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmembed.report import plots
from mmembed.report.html import Section, table, tag


def layer_similarities(results: Mapping[str, Any]) -> Section | None:
    """The picture of a layer anchoring study's `results.json`; None of another study's."""
    found = [results[name] for name in ("layer_similarity", "vowel_similarity") if name in results]
    if not found:
        return None
    parts: list[str] = []
    for one in found:
        names = one["layers"]
        sides = (f"source: {one['source']}", f"target: {one['target']}")
        groups = [(str(number), ", ".join(group)) for number, group in enumerate(one["groups"])]
        parts += [
            tag("p", f"By {one['metric']}:"),
            plots.similarities(one["similarity"], names, names, sides),
            table(("Fold", "Anchored group"), groups),
        ]
    return Section(
        "Layers across languages",
        "How alike each layer of the source is to each of the target, 1 where they are the same; "
        "mean over folds, on training clips, without emotions. Adjacent layers that are most alike "
        "are anchored together.",
        parts,
    )
