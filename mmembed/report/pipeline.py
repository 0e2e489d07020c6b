"""The page of a whole pipeline: pre-training, the embeddings, and emotion models on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jiwer

from mmembed.errors import UsageError
from mmembed.report import embedding_map, emotion, plots
from mmembed.report.render import write_page
from mmembed.report.run_folder import Json, RunFolder, correlations, flatten, in_stream_order
from mmembed.report.score_table import Cell, Score, number, percent

SAMPLES = 10  # transcripts shown
SPLIT_NAMES = {"heldout": "Held-out utterances", "test": "Test speakers"}
DEV_TITLES = {
    "wer": "dev WER, %",
    "cer": "dev CER, %",
    "speaker_accuracy": "dev speaker accuracy, %",
}
NOT_A_LOSS = {"split", "step", "epoch", "seconds", "learning_rate"}
Parts = list[tuple[str, bool]]


def write_pipeline(folder: Path, out: Path) -> Path:
    """Write the page; a part that the run does not have is said to be missing.

    Raises:
        UsageError: the folder holds nothing to report.
        CorruptError: a part is damaged.
    """
    run = RunFolder(folder)
    if run.is_empty:
        raise UsageError(
            f"{folder}: nothing to report; name the folder of `pretrain` or of a finished "
            "`finetune`, or one with pretrain/, emotion/ or embeddings/"
        )
    heldout = run.evaluation.get("heldout") or run.evaluation.get("test") or {}
    terms = {t: t.replace("_", " ") for x in run.split("train") for t in x if t not in NOT_A_LOSS}
    return write_page(
        "pipeline.html",
        out,
        title=folder.resolve().name,
        pretraining_alone=run.pretraining_alone,
        cards=key_numbers(run),
        losses=_curves(run.split("train"), terms, 4),
        dev_scores=_curves(run.split("dev"), DEV_TITLES, len(DEV_TITLES), 100),
        speech=speech_rows(run.evaluation),
        transcripts=[
            (sample.get("key", ""), *word_differences(sample))
            for sample in (heldout.get("samples") or [])[:SAMPLES]
        ],
        on_common_clips=run.on_common_clips,
        sentiment=emotion.sentiment(run),
        agreement=emotion.agreement(run.predictions),
        emotions=emotion.emotions(run),
        predicted_emotions=emotion.predicted_emotions(run.predictions),
        map=embedding_map.embedding_map(run.points),
        weights=weights(run),
        config=list(flatten(run.config)) if run.config else [],
        summary=list(flatten(run.summary)) if run.summary else [],
    )


def key_numbers(run: RunFolder) -> list[tuple[str, str, str]]:
    """The figures to remember: from the summary, or else from the parts."""
    heldout = run.evaluation.get("heldout") or {}
    speaker = run.summary.get("speaker_accuracy", heldout.get("speaker_accuracy"))
    chance = percent(heldout.get("chance_speaker_accuracy"))
    wer = percent(run.summary.get("wer", heldout.get("wer")))
    figures = [
        (wer, "word error rate", "utterances not used in training"),
        (percent(speaker), "speaker accuracy", f"chance level {chance}"),
    ]
    by_subset = run.summary.get("sentiment_correlation") or correlations(run.scores["sentiment"])
    means = {name: Score.of(by_subset[name]).mean for name in in_stream_order(by_subset)}
    if means:
        fullest = list(means)[-1]
        figures.append((number(means[fullest]), "sentiment correlation", fullest))
    singles = {name: mean for name, mean in means.items() if "+" not in name}
    if len(means) > len(singles) > 0:
        best = max(singles, key=singles.__getitem__)
        figures.append((number(singles[best]), "best single stream", best))
    untrained = run.summary.get("sentiment_correlation_untrained")
    if untrained is None:
        by_subset = correlations(run.untrained["sentiment"])
        untrained = max((score.mean for score in by_subset.values()), default=None)
    figures.append((number(untrained), "untrained encoder", "sentiment correlation, same probe"))
    return figures


def _curves(
    lines: Sequence[Json], titles: Mapping[str, str], across: int, scale: float = 1
) -> plots.Plot | None:
    """The finite values of each metric over the steps; None where none ever occurs."""
    curves = {}
    for key, title in titles.items():
        points = [
            (line.get("step", index), scale * line[key])
            for index, line in enumerate(lines)
            if isinstance(line.get(key), int | float) and math.isfinite(line[key])
        ]
        if points:
            curves[title] = ([x for x, _ in points], [y for _, y in points])
    return plots.curves(curves, min(across, len(curves))) if curves else None


def speech_rows(evaluation: Json) -> list[tuple[Cell | str, ...]]:
    """Recognition and speaker scores of each split, and of each stream subset of it."""
    rows: list[tuple[Cell | str, ...]] = []
    for split, name in SPLIT_NAMES.items():
        if scores := evaluation.get(split):
            rows.append((name, *_speech_cells(scores), str(scores.get("utterances", ""))))
            subsets = scores.get("by_streams") or {}
            for subset in in_stream_order(subsets):
                name_cell = Cell(subset, style="baseline")
                rows.append((name_cell, *_speech_cells(subsets[subset]), ""))
            if "chance_speaker_accuracy" in scores:
                chance = percent(scores["chance_speaker_accuracy"])
                rows.append((Cell("chance level", style="baseline"), "", "", chance, ""))
    return rows


def _speech_cells(scores: Mapping[str, Any]) -> list[str]:
    return [percent(scores.get(name)) for name in ("wer", "cer", "speaker_accuracy")]


def word_differences(sample: Mapping[str, Any]) -> tuple[Parts, Parts]:
    """Reference and hypothesis in parts: (words, whether the minimal edit changes them)."""
    reference, hypothesis = str(sample.get("reference", "")), str(sample.get("hypothesis", ""))
    if not reference.split():
        return [], [(hypothesis, False)]
    aligned = jiwer.process_words(reference, hypothesis)
    upper, lower = [], []
    for chunk in aligned.alignments[0]:
        differs = chunk.type != "equal"
        old = aligned.references[0][chunk.ref_start_idx : chunk.ref_end_idx]
        new = aligned.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx]
        upper += [(" ".join(old), differs)] if old else []
        lower += [(" ".join(new), differs)] if new else []
    return upper, lower


def weights(run: RunFolder) -> list[tuple[str, plots.Plot]]:
    """The learned weights of streams and of layers."""
    named = {"Streams in the fused sequence": run.evaluation.get("fusion_weights")}
    for task, values in (run.evaluation.get("layer_weights") or {}).items():
        named[f"Layers, {task.replace('_', ' ')} task"] = values
    named["Layers, emotion probe"] = run.emotion.get("layer_weights")
    return [
        (title, plots.bars(values, f"weight ({title.lower()})"))
        for title, values in named.items()
        if values
    ]
