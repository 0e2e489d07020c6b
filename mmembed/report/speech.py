"""Learning curves, speech recognition and speaker scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jiwer

from mmembed.report import plots
from mmembed.report.html import Html, Section, join, missing, percent, table, tag, words
from mmembed.report.run_folder import Json, RunFolder, in_stream_order

SAMPLES = 10  # transcripts shown
SPLIT_NAMES = {"heldout": "Held-out utterances", "test": "Test speakers"}
DEV_TITLES = {
    "wer": "dev WER, %",
    "cer": "dev CER, %",
    "speaker_accuracy": "dev speaker accuracy, %",
}
NOT_A_LOSS = {"split", "step", "epoch", "seconds", "learning_rate"}


def learning(run: RunFolder) -> Section:
    """Loss terms and development scores over training."""
    train, dev = run.split("train"), run.split("dev")
    content: list[Html] = []
    terms = list(dict.fromkeys(key for line in train for key in line if key not in NOT_A_LOSS))
    losses = {words(term): curve for term in terms if (curve := _curve(train, term))}
    if losses:
        content.append(plots.curves(losses, min(4, len(losses))))
    scores = {
        title: (curve[0], [100 * value for value in curve[1]])
        for key, title in DEV_TITLES.items()
        if (curve := _curve(dev, key))
    }
    if scores:
        content.append(plots.curves(scores, len(scores)))
    return Section(
        "Learning curves",
        "The loss and its terms on the training split, scores of speech on the development split, "
        "and of speakers on held-out utterances.",
        content or [missing("Learning curves", "pretrain/metrics.jsonl")],
    )


def speech(run: RunFolder) -> Section:
    """Recognition and speaker scores by stream subset, and transcripts."""
    rows = []
    for split, name in SPLIT_NAMES.items():
        if scores := run.evaluation.get(split):
            rows.append((name, *_speech_cells(scores), str(scores.get("utterances", ""))))
            for subset in in_stream_order(scores.get("by_streams") or {}):
                cells = _speech_cells(scores["by_streams"][subset])
                rows.append((tag("span", subset, class_="sub"), *cells, ""))
            if "chance_speaker_accuracy" in scores:
                chance = percent(scores["chance_speaker_accuracy"])
                rows.append((tag("span", "chance", class_="sub"), "", "", chance, ""))
    heldout = run.evaluation.get("heldout") or run.evaluation.get("test") or {}
    samples = [
        tag("div", tag("small", sample.get("key", "")), _transcript(sample), class_="sample")
        for sample in (heldout.get("samples") or [])[:SAMPLES]
    ]
    content = [
        table(("", "WER", "CER", "Speaker accuracy", "Utterances"), rows),
        join(
            tag("h3", "What was heard"),
            tag(
                "p",
                "The reference above, the hypothesis below; words that differ are marked.",
                class_="lead",
            ),
            samples,
        )
        if samples
        else "",
    ]
    return Section(
        "Speech and speakers",
        "Share of words (WER) and characters (CER) in error, lower is better, and share of "
        "utterances whose speaker is named rightly. Held-out utterances are by speakers of the "
        "training split; test speakers were never heard, so they cannot be named.",
        content if rows else [missing("Speech and speaker scores", "pretrain/evaluation.json")],
    )


def _curve(lines: Sequence[Json], key: str) -> tuple[list[float], list[float]] | None:
    """Steps and finite values of one metric, None where it never occurs."""
    pairs = [
        (line.get("step", index), line[key])
        for index, line in enumerate(lines)
        if isinstance(line.get(key), int | float) and math.isfinite(line[key])
    ]
    return ([x for x, _ in pairs], [y for _, y in pairs]) if pairs else None


def _speech_cells(scores: Mapping[str, Any]) -> list[str]:
    return [percent(scores.get(name)) for name in ("wer", "cer", "speaker_accuracy")]


def _transcript(sample: Mapping[str, Any]) -> Html:
    """Reference and hypothesis, words of the minimal edit marked."""
    reference, hypothesis = str(sample.get("reference", "")), str(sample.get("hypothesis", ""))
    if not reference.split():
        return tag("p", hypothesis)
    aligned = jiwer.process_words(reference, hypothesis)
    upper: list[object] = []
    lower: list[object] = []
    for chunk in aligned.alignments[0]:
        old = " ".join(aligned.references[0][chunk.ref_start_idx : chunk.ref_end_idx])
        new = " ".join(aligned.hypotheses[0][chunk.hyp_start_idx : chunk.hyp_end_idx])
        same = chunk.type == "equal"
        upper += [old if same else tag("del", old), " "] if old else []
        lower += [new if same else tag("ins", new), " "] if new else []
    return tag("p", *upper, tag("br"), *lower)
