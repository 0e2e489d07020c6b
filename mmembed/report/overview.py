"""The first and the last parts of the page: key numbers, learned weights, configuration."""

from __future__ import annotations

from mmembed.report import plots
from mmembed.report.html import (
    Html,
    Section,
    cards,
    collapsed,
    missing,
    number,
    percent,
    table,
    tag,
    words,
)
from mmembed.report.run_folder import RunFolder, Score, correlation, flatten, in_stream_order


def key_numbers(run: RunFolder) -> Html:
    """The figures to remember, each as a card: from the summary, or else from the parts."""
    heldout = run.evaluation.get("heldout") or {}
    wer = run.summary.get("wer", heldout.get("wer"))
    speaker = run.summary.get("speaker_accuracy", heldout.get("speaker_accuracy"))
    chance = percent(heldout.get("chance_speaker_accuracy"))
    figures = [
        (percent(wer), "word error rate", "utterances never trained on"),
        (percent(speaker), "speaker accuracy", f"chance {chance}"),
    ]
    by_subset = run.summary.get("sentiment_correlation") or {
        name: correlation(scores).mean for name, scores in run.subsets.items()
    }
    names = in_stream_order(by_subset)
    if names:
        figures.append((number(by_subset[names[-1]]), "sentiment correlation", names[-1]))
    singles = [name for name in names if "+" not in name]
    if len(names) > len(singles) > 0:
        best = max(singles, key=lambda name: Score.of(by_subset[name]).mean)
        figures.append((number(by_subset[best]), "best single stream", best))
    untrained = run.summary.get("sentiment_correlation_untrained")
    if untrained is None and run.untrained:
        untrained = max(correlation(scores).mean for scores in run.untrained.values())
    figures.append((number(untrained), "untrained encoder", "sentiment correlation, same probe"))
    return cards(figures)


def weights(run: RunFolder) -> Section:
    """What the encoder and the probes learned to listen to."""
    named = {"Streams in the fused sequence": run.evaluation.get("fusion_weights")}
    for task, values in (run.evaluation.get("layer_weights") or {}).items():
        named[f"Layers, {words(task)} task"] = values
    named["Layers, emotion probe"] = run.emotion.get("layer_weights")
    content: list[object] = []
    for title, values in named.items():
        if values:
            scores = {name: Score.of(value) for name, value in values.items()}
            content += [tag("h3", title), plots.bars(scores, f"weight ({title.lower()})")]
    return Section(
        "Weights",
        "Learned weights, each set summing to one: how much of every stream goes into the fused "
        "sequence, and how much of every layer a task reads.",
        content or [missing("Weights", "pretrain/evaluation.json")],
    )


def configuration(run: RunFolder) -> Section:
    """The resolved configuration, collapsed."""
    content = [
        collapsed(title, table(("Name", "Value"), flatten(values)))
        for title, values in {"Configuration": run.config, "Summary": run.summary}.items()
        if values
    ]
    return Section(
        "Configuration",
        "Everything that defines this run, as it was resolved when it started.",
        [content, "" if run.config else missing("Configuration", "pretrain/run.json")],
    )
