"""How alike the layers of a frozen encoder are in two languages, and which were anchored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmembed.report import plots
from mmembed.report.markup import Section, table


def layer_similarities(results: Mapping[str, Any]) -> Section | None:
    """The picture of a layer anchoring study's `results.json`; None of another study's."""
    found = results.get("layer_similarity")
    if not found:
        return None
    names = found["layers"]
    sides = (f"source: {found['source']}", f"target: {found['target']}")
    groups = [(str(number), ", ".join(group)) for number, group in enumerate(found["groups"])]
    return Section(
        "Layers across languages",
        f"The {found['measure']} of each layer of the source with each of the target, 1 where they "
        "are alike; mean over folds, on training clips, without labels. Adjacent layers that are "
        "most alike are anchored together.",
        [
            plots.similarities(found["similarity"], names, names, sides),
            table(("Fold", "Anchored group"), groups),
        ],
    )
