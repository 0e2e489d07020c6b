"""How similar the layers of a frozen encoder are in two languages, and which were anchored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmembed.report import plots
from mmembed.report.run_folder import Json


def similarities(results: Mapping[str, Any]) -> list[Json]:
    """What the report shows of the `results.json` of layer anchoring; nothing of other studies."""
    found = []
    for one in (results.get(name) for name in ("layer_similarity", "vowel_similarity")):
        if one is not None:
            names, axes = one["layers"], (f"source: {one['source']}", f"target: {one['target']}")
            title = f"similarity of layers by {one['metric']}, {axes[0]} and {axes[1]}"
            plot = plots.heat(one["similarity"], names, names, axes, "similarity", title)
            rows = [(fold, ", ".join(group)) for fold, group in enumerate(one["groups"])]
            found.append({"metric": one["metric"], "plot": plot, "rows": rows})
    return found
