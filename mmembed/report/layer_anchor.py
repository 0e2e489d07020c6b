"""How similar the layers of a frozen encoder are in two languages, and which were anchored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmembed.report import plots
from mmembed.report.run_folder import Json


def similarities(results: Mapping[str, Any]) -> list[Json]:
    """What the report shows of the `results.json` of layer anchoring; nothing of other studies."""
    found = [results[name] for name in ("layer_similarity", "vowel_similarity") if name in results]
    return [
        {
            "metric": one["metric"],
            "plot": similarity_plot(one),
            "rows": [(fold, ", ".join(group)) for fold, group in enumerate(one["groups"])],
        }
        for one in found
    ]


def similarity_plot(one: Mapping[str, Any]) -> plots.Plot:
    """The similarity of each layer of the source (rows) to each of the target (columns)."""
    names, axes = one["layers"], (f"source: {one['source']}", f"target: {one['target']}")
    title = f"similarity of layers by {one['metric']}, {axes[0]} and {axes[1]}"
    return plots.heat(one["similarity"], names, names, axes, "similarity", title)
