"""Summarise a manifest, a prepared folder or a folder of embeddings.

Example:
    mmembed inspect data/ravdess --html ravdess.html

Shows counts, hours, speakers, labels, transcripts, vectors, duplicates, failures, and likely
mistakes. Nothing is decoded: of a manifest of media, only what its rows say is known.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tyro

from mmembed.errors import UsageError, printable
from mmembed.io.progress import progress

if TYPE_CHECKING:
    from mmembed.data.inspect.summary import Summary

WIDTH: Final = 100  # of the lines printed
NAME: Final = 18  # of the column of names


@dataclass(frozen=True)
class Inspect:
    """What to look at.

    Attributes:
        path: A manifest (.jsonl, .parquet), a prepared folder, a folder of shards or of embeddings.
        html: Also write an HTML page with histograms, faces and transcripts to this file.
        seed: Seed for the choice of faces and transcripts.
    """

    path: tyro.conf.Positional[Path]
    html: Path | None = None
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Print what there is, and write the page if asked."""
    settings = tyro.cli(Inspect, prog="mmembed inspect", args=argv, description=__doc__)
    from mmembed.data.inspect.summary import summarise
    from mmembed.data.locations import find_locations

    locations = find_locations(settings.path)
    if settings.html is not None and len(locations) > 1:
        names = ", ".join(location.path.name for location in locations)
        raise UsageError(f"{settings.path}: --html takes one folder of several; name one: {names}")
    for number, location in enumerate(locations):
        with progress("inspect %", 100) as update:
            summary = summarise(location, settings.seed, lambda done, of: update(100 * done // of))
        print(("\n" if number else "") + as_text(summary), flush=True)
    if settings.html is not None:
        from mmembed.report.inspect import write_contents  # draws: takes a second to import

        print(f"\n{write_contents(summary, settings.html)}")


def as_text(summary: Summary) -> str:
    """The lines for a terminal."""
    from mmembed.data.inspect.summary_lines import summary_lines, warnings

    lines = [printable(str(summary.location.path))]
    lines += [_wrapped(name, text) for name, text in summary_lines(summary)]
    lines += [_wrapped("warning", text) for text in warnings(summary)]
    return "\n".join(lines)


def _wrapped(name: str, text: str) -> str:
    first = f"  {printable(name):{NAME}}"
    return textwrap.fill(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * (NAME + 2),
        break_on_hyphens=False,
        break_long_words=False,
    )
