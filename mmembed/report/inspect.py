"""One self-contained page that shows what a corpus holds."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Final

from mmembed import __version__
from mmembed.data.inspect.summary import Summary
from mmembed.data.inspect.summary_lines import facts, sentiment_classes, warnings
from mmembed.errors import printable
from mmembed.io.atomic import atomic_file
from mmembed.report import plots
from mmembed.report.html import DASH, Html, Section, cards, table, tag
from mmembed.report.page import page
from mmembed.report.pictures import picture

BARS: Final = 30  # more names than this are drawn as a histogram, or counted
TRANSCRIPT: Final = 300  # characters shown of one


def write_contents(summary: Summary, out: Path) -> Path:
    """Write the page; the same corpus and seed give the same bytes.

    Raises:
        CorruptError: the face crops that were chosen are damaged.
    """
    place = summary.place.path
    name = place.parent.resolve().name if summary.place.manifest else place.resolve().name
    sections = [_numbers(summary), _lengths(summary), _labels(summary), _speakers(summary)]
    sections += [_faces(summary), _transcripts(summary), _broken(summary)]
    html = page(
        title=name,
        summary=_cards(summary),
        sections=[section for section in sections if section.content],
        note=f"Made by mmembed {__version__} of {place}. This file is complete in itself.",
    )
    with atomic_file(out) as file:
        file.write(html.encode("utf-8", "backslashreplace"))  # a name may be no text
    return out


def _cards(summary: Summary) -> Html:
    hours = f"{sum(summary.seconds) / 3600:,.2f}" if summary.seconds else DASH
    broken = summary.broken.total()
    figures = [
        (f"{summary.count:,}", "utterances", f"{broken:,} more cannot be used" if broken else ""),
        (hours, "hours", f"of {len(summary.seconds):,} utterances"),
        (f"{len(summary.speakers):,}" if summary.speakers else DASH, "speakers", ""),
        (f"{len(summary.vocabulary):,}" if summary.words else DASH, "different words", ""),
        (f"{len(warnings(summary))}", "warnings", ""),
    ]
    return cards(figures)


def _numbers(summary: Summary) -> Section:
    return Section(
        "Numbers",
        "Counted row by row; what nobody knows is left out. Warnings are likely mistakes.",
        [
            [tag("p", "Warning: ", text, class_="missing") for text in warnings(summary)],
            tag("div", table(("", ""), facts(summary)), class_="facts"),
        ],
    )


def _lengths(summary: Summary) -> Section:
    content = []
    if summary.seconds:
        content.append(plots.histogram(summary.seconds, "seconds", "utterances"))
    if summary.words:
        content.append(plots.histogram(summary.words, "words in a transcript", "utterances"))
    return Section("Lengths", "How long the utterances are, in seconds and in words.", content)


def _labels(summary: Summary) -> Section:
    content = []
    for title, counts in (
        ("Categories", summary.categories),
        ("Emotions present", summary.emotions_present),
        ("Labels, several of one utterance", summary.present),
        ("Sentiment", sentiment_classes(summary.sentiment) if summary.sentiment else {}),
    ):
        if counts:
            ordered = counts if title == "Sentiment" else _most(counts)
            bars = plots.tallies(ordered, f"utterances ({title.lower()})")
            content += [tag("h3", title), bars]
    return Section(
        "Labels",
        "Utterances by label. Sentiment by the classes of CMU-MOSEI, -3 to +3; an emotion is "
        "present where its intensity is above 0.",
        content,
    )


def _speakers(summary: Summary) -> Section:
    sizes = {name: splits.total() for name, splits in summary.speakers.items()}
    content: list[Html] = []
    if 0 < len(sizes) <= BARS:
        content = [plots.tallies(_most(sizes), "utterances by speaker")]
    elif sizes:
        content = [plots.histogram(list(sizes.values()), "utterances of a speaker", "speakers")]
    return Section("Speakers", "How much of the corpus is by whom.", content)


def _faces(summary: Summary) -> Section:
    figures = [
        tag("figure", picture(crops[len(crops) // 2], key), tag("small", key))
        for key, stored in sorted(summary.crops.items, key=itemgetter(0))
        if len(crops := stored.read())
    ]
    return Section(
        "Faces",
        "The middle frame of some utterances chosen by chance, as the encoder sees it.",
        [tag("div", figures, class_="faces")] if figures else [],
    )


def _transcripts(summary: Summary) -> Section:
    samples = [
        tag("div", tag("small", key), tag("p", text[:TRANSCRIPT]), class_="sample")
        for key, text in sorted(summary.texts.items)
    ]
    return Section("Transcripts", "Some utterances chosen by chance, as written.", samples)


def _broken(summary: Summary) -> Section:
    samples = [
        tag("div", tag("small", key), tag("p", text[:TRANSCRIPT]), class_="sample")
        for key, text in summary.failures
    ]
    return Section("Broken", "The first of the utterances that cannot be used, and why.", samples)


def _most(counts: Mapping[str, int]) -> dict[str, int]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = {printable(name): count for name, count in ordered[:BARS]}
    if rest := ordered[BARS:]:
        shown[f"{len(rest)} others"] = sum(count for _, count in rest)
    return shown
