"""Sentiment and emotion scores by stream subset, beside the untrained encoder and a constant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.metrics.bootstrap import count_groups, plural
from mmembed.report import plots
from mmembed.report.run_folder import Json, RunFolder, correlations, variants_of
from mmembed.report.score_table import METRIC_NAMES, ScoreRow, score_cells

IN_UNITS = {"mae", "correlation"}  # the other scores are shown in percent
EMOTION_SCORES = {"wa": "Weighted accuracy, %", "f1": "Weighted F1, %"}


def sentiment(run: RunFolder) -> Json | None:
    """Sentiment scores and their correlations as bars; None where the run has none."""
    rows, test = _rows(run, "sentiment"), run.scores["sentiment"]
    if not rows:
        return None
    columns = {n: t for n, t in METRIC_NAMES.items() if any(n in row.scores for row in rows)}
    return {
        "seeds": len(run.emotion.get("seeds") or []),
        "groups": plural(test.get("grouping", "speaker")),
        "counts": _counts(test),
        "head": ("", *columns.values()),
        "rows": score_cells(rows, columns, columns.keys() - IN_UNITS),
        "bars": plots.bars(
            correlations(test),
            "Pearson correlation of predicted and true sentiment",
            ("same probe on the untrained encoder", correlations(run.untrained["sentiment"])),
        ),
    }


def _counts(test: Json) -> str:
    """How many items and groups the scores are computed from, where that is recorded."""
    if "counts" not in test:
        return ""
    items = count_groups(test["items"], "item")
    counts = f"The scores are of {items} of {count_groups(test['groups'], test['grouping'])}"
    polar = test["counts"].get("acc2_pos", test)
    if polar["items"] < test["items"]:
        counts += f"; those marked > 0 are of {polar['items']:,} items of {polar['groups']:,}"
    return counts + "."


def agreement(predictions: Json) -> Json | None:
    """Predicted against true sentiment; None where no predictions were kept."""
    if not (values := predictions.get("sentiment")):
        return None
    truth = np.array(values["truth"], np.float64)  # null becomes NaN
    known = np.flatnonzero(~np.isnan(truth))
    names = predictions.get("speakers") or [None] * len(truth)
    speakers = [str(names[row] or "") for row in known]
    plot = plots.agreement(truth[known], np.array(values["predicted"])[known], speakers)
    return {"plot": plot, "speakers": plots.colours_of(speakers)}


def emotions(run: RunFolder) -> Json | None:
    """A table for each score with a column for each emotion, and what they were computed from."""
    rows, table = _rows(run, "emotions"), run.scores["emotions"]
    for clips, other in (table.get("by_clips") or {}).items():
        rows += [
            ScoreRow(f"{name}, {clips}", scores, baseline=True)
            for name, scores in (other.get("variants") or {}).items()
        ]
    names = list(dict.fromkeys(name for row in rows for name in row.scores))
    if not names:
        return None
    tables = {}
    for score, title in EMOTION_SCORES.items():
        chosen = [
            replace(row, scores={n: each.get(score) for n, each in row.scores.items() if each})
            for row in rows
        ]
        tables[title] = score_cells(chosen, names, names)
    counts = table.get("counts") or {}
    return {
        "head": ("", *names),
        "tables": tables,
        "counts": [(n, c["positives"], c["items"], c["groups"]) for n, c in counts.items()],
        "groups": ", ".join(dict.fromkeys(plural(c["grouping"]) for c in counts.values())),
    }


def predicted_emotions(predictions: Json) -> Json | None:
    """Mean predictions with and without each emotion, and the confusion matrix."""
    if not (values := predictions.get("emotions")):
        return None
    truth = np.array(values["truth"], np.float64)  # (N, E) in [0, 3]; null becomes NaN
    predicted = np.array(values["predicted"], np.float64)
    means = {
        name: [
            predicted[chosen[:, e], e].mean() if chosen[:, e].any() else 0.0
            for e in range(len(EMOTIONS))
        ]
        for name, chosen in {"emotion absent": truth == 0, "emotion present": truth > 0}.items()
    }
    return {
        "bars": plots.paired_bars(EMOTIONS, means, "mean predicted intensity"),
        "confusion": strongest_emotions(truth, predicted),
    }


def strongest_emotions(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> Json | None:
    """The strongest emotion of each utterance that has one; None where none has.

    What `templates/confusion_matrix.html` draws: "names" of the C classes; "rows", C of C cells
    (count, fraction of the row's items); "total", how many items there are in all.

    Args:
        truth: (N, E) in [0, 3], NaN = not known.
        predicted: (N, E).
    """
    some = (truth > 0).any(axis=1) & ~np.isnan(truth).any(axis=1)
    if not some.any():
        return None
    strongest, guessed = truth[some].argmax(axis=1), predicted[some].argmax(axis=1)
    counts, fractions = (
        confusion_matrix(strongest, guessed, labels=range(len(EMOTIONS)), normalize=part).tolist()
        for part in (None, "true")
    )
    rows = [list(zip(*pair, strict=True)) for pair in zip(counts, fractions, strict=True)]
    return {"names": EMOTIONS, "rows": rows, "total": len(strongest)}


def _rows(run: RunFolder, part: str) -> list[ScoreRow]:
    """Stream subsets, then the untrained encoder, then the constant baseline."""
    table = run.scores[part]
    rows = [ScoreRow(name, scores) for name, scores in variants_of(table).items()]
    for name, scores in variants_of(run.untrained[part]).items():
        rows.append(ScoreRow(f"untrained, {name}", scores, baseline=True))
    rows.append(ScoreRow("constant baseline", table.get("constant") or {}, baseline=True))
    return [row for row in rows if row.scores]
