"""Sentiment and emotion scores, by stream subset and beside the answers that know nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.metrics.bootstrap import count_groups, plural
from mmembed.report import plots
from mmembed.report.html import Html, Section, join, missing, number, table, tag
from mmembed.report.run_folder import Json, RunFolder, Score, correlation

SENTIMENT_COLUMNS = {
    "mae": "MAE",
    "correlation": "Correlation",
    "acc2_nonneg": "Acc-2 (\u2265 0)",
    "f1_nonneg": "F1 (\u2265 0)",
    "acc2_pos": "Acc-2 (> 0)",
    "f1_pos": "F1 (> 0)",
    "acc7": "Acc-7",
    "acc2": "Acc-2 (\u2264 0, > 0)",
    "weighted_f1": "Weighted F1",
    "acc3": "Acc-3",
    "acc5": "Acc-5",
}
ON_COMMON = (
    "Stream subsets hold different clips: these are scores on the clips that all of them have."
)
IN_UNITS = {"mae", "correlation"}  # the other scores are shown in percent


@dataclass(frozen=True)
class ScoreRow:
    """One line of a score table; baselines do not compete for the best."""

    name: str
    scores: Json
    baseline: bool = False


def sentiment(run: RunFolder) -> Section:
    """Sentiment scores by stream subset, and predictions against truth."""
    rows = _rows(run, "sentiment")
    content: list[object] = []
    columns = {
        name: title
        for name, title in SENTIMENT_COLUMNS.items()
        if any(name in row.scores for row in rows)
    }
    if rows:
        untrained = {name: correlation(scores).mean for name, scores in run.untrained.items()}
        content += [
            _score_table(rows, columns),
            tag("h3", "Correlation by streams"),
            plots.bars(
                {name: correlation(scores) for name, scores in run.subsets.items()},
                "Pearson correlation of predicted and true sentiment",
                ("same probe on the untrained encoder", untrained),
            ),
        ]
    else:
        content.append(missing("Sentiment scores", "emotion/results.json"))
    if rows and run.on_common_clips:
        content.append(
            tag("p", f"{ON_COMMON} Each on its own: mmembed report emotion.", class_="lead")
        )
    predictions = run.predictions.get("sentiment")
    if predictions:
        truth = np.array(predictions["truth"], np.float64)  # null becomes NaN
        known = np.flatnonzero(~np.isnan(truth))
        names = run.predictions.get("speakers") or [None] * len(truth)
        speakers = [str(names[row] or "") for row in known]
        content += [
            tag("h3", "Predicted against true sentiment"),
            plots.agreement(truth[known], np.array(predictions["predicted"])[known], speakers),
            plots.named_legend(speakers, "speaker"),
        ]
    else:
        content.append(missing("Predictions", "emotion/predictions.json"))
    return Section(
        "Sentiment",
        "A small regressor on the frozen embeddings, scored on speakers it never met: mean and "
        f"standard deviation over {len(run.emotion.get('seeds') or [])} seeds, below them the "
        f"95 % bootstrap interval over {plural(run.sentiment.get('grouping', 'speaker'))}. "
        f"{_rests(run.sentiment)}MAE is lower the better; accuracies and F1 are "
        "percentages. The best streams of each column are bold. The constant row always predicts "
        "the mean or the majority class of the training split.",
        content,
    )


def _rests(test: Json) -> str:
    """How many items and groups the scores rest on, where they say so."""
    if "counts" not in test:
        return ""
    told = f"Scores rest on {count_groups(test['items'], 'item')} of "
    told += count_groups(test["groups"], test["grouping"])
    polar = test["counts"].get("acc2_pos", test)
    if polar["items"] < test["items"]:
        told += f", those of > 0 on {polar['items']:,} of {polar['groups']:,}"
    return told + ". "


def emotions(run: RunFolder) -> Section:
    """Scores of each emotion, and where predictions go."""
    content: list[object] = []
    rows = _rows(run, "emotions")
    for clips, variants in run.emotions_by_clips.items():
        rows += [
            ScoreRow(f"{name}, {clips}", scores, baseline=True) for name, scores in variants.items()
        ]
    names = {name: name for row in rows for name in row.scores}
    for score, title in {"wa": "Weighted accuracy, %", "f1": "Weighted F1, %"}.items():
        if names:
            chosen = [
                ScoreRow(
                    row.name,
                    {name: (row.scores.get(name) or {}).get(score) for name in names},
                    row.baseline,
                )
                for row in rows
            ]
            content += [tag("h3", title), _score_table(chosen, names)]
    if counts := (run.emotion.get("emotions") or {}).get("counts"):
        body = [(name, c["positives"], c["items"], c["groups"]) for name, c in counts.items()]
        kinds = dict.fromkeys(plural(c["grouping"]) for c in counts.values())
        content += [
            tag("h3", "What these scores rest on"),
            table(("", "items that have it", "of", ", ".join(kinds)), body),
        ]
    if not names:
        content.append(missing("Emotion scores", "emotion/results.json"))
    if predictions := run.predictions.get("emotions"):
        truth = np.array(predictions["truth"], np.float64)  # null becomes NaN
        content += _pictures(truth, np.array(predictions["predicted"], np.float64))
    else:
        content.append(missing("Predictions", "emotion/predictions.json"))
    return Section(
        "Emotions",
        "Each emotion is present or absent in an utterance. Weighted accuracy gives both sides "
        "equal weight, so chance is 50 %; F1 is weighted by how many items each side has, so that "
        "a rare emotion looks good in it even with a constant prediction."
        + (f" {ON_COMMON}" if run.on_common_clips else ""),
        content,
    )


def _rows(run: RunFolder, part: str) -> list[ScoreRow]:
    """Stream subsets, then the untrained encoder, then the constant baseline; none if no subset."""
    rows = [ScoreRow(name, scores.get(part) or {}) for name, scores in run.subsets.items()]
    for name, scores in run.untrained.items():
        rows.append(ScoreRow(f"untrained, {name}", scores.get(part) or {}, baseline=True))
    if constant := run.constant.get(part):
        rows.append(ScoreRow("constant", constant, baseline=True))
    return [row for row in rows if row.scores]


def _score_table(rows: Sequence[ScoreRow], columns: Mapping[str, str]) -> Html:
    """Mean, standard deviation and interval; the best subset of each column in bold."""
    best = {}
    for column in columns:
        means = [Score.of(row.scores.get(column)).mean for row in rows if not row.baseline]
        known = [mean for mean in means if math.isfinite(mean)]
        best[column] = (min if column == "mae" else max)(known, default=math.nan)
    body = [
        (
            tag("span", row.name, class_="sub") if row.baseline else row.name,
            *(
                cell(
                    Score.of(row.scores.get(column)),
                    in_percent=column not in IN_UNITS,
                    best=math.nan if row.baseline else best[column],
                )
                for column in columns
            ),
        )
        for row in rows
    ]
    return table(("", *columns.values()), body)


def cell(score: Score, *, in_percent: bool, best: float) -> Html:
    """Mean, bold where it is the best one, deviation and interval as far as they are known."""
    scale, digits = (100, 1) if in_percent else (1, 3)
    mean = tag("b" if score.mean == best else "span", number(score.mean * scale, digits))
    spread = f" \u00b1 {number(score.std * scale, digits)}" if math.isfinite(score.std) else ""
    low, high = number(score.low * scale, digits), number(score.high * scale, digits)
    interval = tag("small", f"{low} to {high}") if math.isfinite(score.low) else ""
    return join(mean, tag("span", spread, class_="spread"), interval)


def _pictures(truth: NDArray[np.float64], predicted: NDArray[np.float64]) -> list[Html]:
    """Mean predictions with and without each emotion, and the strongest emotion as confusions.

    Args:
        truth: (N, E) in [0, 3], NaN = not known.
        predicted: (N, E).
    """
    present, absent = truth > 0, truth == 0
    means = {
        name: [
            predicted[chosen[:, e], e].mean() if chosen[:, e].any() else 0.0
            for e in range(len(EMOTIONS))
        ]
        for name, chosen in {"emotion absent": absent, "emotion present": present}.items()
    }
    pictures = [
        tag("h3", "Predicted intensity"),
        tag(
            "p",
            "Mean predicted intensity of each emotion over the utterances with and without it: "
            "the further apart the two bars, the better the emotion is told.",
            class_="lead",
        ),
        plots.paired_bars(EMOTIONS, means, "mean predicted intensity"),
    ]
    some = present.any(axis=1) & ~np.isnan(truth).any(axis=1)
    if some.any():
        names = np.array(EMOTIONS)
        strongest = names[truth[some].argmax(axis=1)]
        guessed = names[predicted[some].argmax(axis=1)]
        pictures += [
            tag("h3", "Strongest emotion"),
            tag(
                "p",
                f"Of the {int(some.sum())} utterances with any emotion: the truly strongest one "
                "(row) against the one predicted strongest (column), as counts; the shade is the "
                "share of the row.",
                class_="lead",
            ),
            _confusions(confusion_matrix(strongest, guessed, labels=EMOTIONS)),
        ]
    return pictures


def _confusions(matrix: NDArray[np.int64]) -> Html:
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    rows = [
        (name, *(tag("i", count, style=f"--share:{share:.2f}") for count, share in cells))
        for name, cells in zip(
            EMOTIONS,
            (zip(counts, share, strict=True) for counts, share in zip(matrix, shares, strict=True)),
            strict=True,
        )
    ]
    return tag("div", table(("true \\ predicted", *EMOTIONS), rows), class_="confusions")
