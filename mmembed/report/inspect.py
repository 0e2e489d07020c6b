"""The page of `mmembed inspect`: what a corpus holds."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Final

from mmembed.data.inspect.summary import Summary
from mmembed.data.inspect.summary_lines import sentiment_classes, summary_lines, warnings
from mmembed.errors import printable
from mmembed.report import plots
from mmembed.report.pictures import picture_url
from mmembed.report.render import write_page
from mmembed.report.score_table import DASH

MAX_BARS: Final = 30  # more names than this are drawn as a histogram, or counted
MAX_CHARACTERS: Final = 300  # shown of one transcript


def write_contents(summary: Summary, out: Path) -> Path:
    """Write the page; the same corpus and seed give the same bytes.

    Raises:
        CorruptError: the face crops that were chosen are damaged.
    """
    path = summary.location.path
    return write_page(
        "inspect.html",
        out,
        title=(path.parent if summary.location.manifest else path).resolve().name,
        path=path,
        cards=_cards(summary),
        warnings=warnings(summary),
        facts=summary_lines(summary),
        lengths=_lengths(summary),
        labels=_labels(summary),
        speakers=_speakers(summary),
        faces=[
            (picture_url(crops[len(crops) // 2]), key, key)
            for key, stored in sorted(summary.crops.items, key=itemgetter(0))
            if len(crops := stored.read())
        ],
        transcripts=[(key, text[:MAX_CHARACTERS]) for key, text in sorted(summary.texts.items)],
        failures=[(key, text[:MAX_CHARACTERS]) for key, text in summary.failures],
    )


def _cards(summary: Summary) -> list[tuple[str, str, str]]:
    seconds, speakers = summary.numbers("seconds"), len(summary.counts("speaker"))
    hours = f"{seconds.sum() / 3600:,.2f}" if len(seconds) else DASH
    broken = summary.broken.total()
    return [
        (f"{len(summary):,}", "utterances", f"{broken:,} more cannot be used" if broken else ""),
        (hours, "hours", f"of {len(seconds):,} utterances"),
        (f"{speakers:,}" if speakers else DASH, "speakers", ""),
        (f"{len(summary.vocabulary):,}" if summary.vocabulary else DASH, "different words", ""),
        (f"{len(warnings(summary))}", "warnings", ""),
    ]


def _lengths(summary: Summary) -> list[plots.Plot]:
    labels = {"seconds": "seconds", "words": "words in a transcript"}
    values = [(summary.numbers(name), label) for name, label in labels.items()]
    return [plots.histogram(each, label, "utterances") for each, label in values if len(each)]


def _labels(summary: Summary) -> dict[str, plots.Plot]:
    scores = summary.numbers("sentiment")
    kinds: dict[str, Mapping[str, int]] = {
        "Categories": _most(summary.counts("category")),
        "Emotions present": _most({name: both[1] for name, both in summary.emotions().items()}),
        "Labels, several of one utterance": _most(summary.counts("present")),
        "Sentiment": sentiment_classes(scores) if len(scores) else {},
    }
    return {
        title: plots.bars(counts, f"utterances ({title.lower()})", digits=0)
        for title, counts in kinds.items()
        if counts
    }


def _speakers(summary: Summary) -> plots.Plot | None:
    sizes = summary.counts("speaker")
    if len(sizes) > MAX_BARS:
        return plots.histogram(list(sizes.values()), "utterances of a speaker", "speakers")
    return plots.bars(_most(sizes), "utterances by speaker", digits=0) if sizes else None


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    """The most frequent names, and how many others there are."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = {printable(name): count for name, count in ordered[:MAX_BARS]}
    if others := ordered[MAX_BARS:]:
        shown[f"{len(others)} others"] = sum(count for _, count in others)
    return shown
