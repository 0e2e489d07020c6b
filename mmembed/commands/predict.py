"""Sentiment and emotions of video files.

mmembed predict clip.mp4 --run demo
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from mmembed.batch import STREAMS, parse_subset, subset_name
from mmembed.data.decoding import Decoder
from mmembed.data.example import EMOTIONS, Example, Labels
from mmembed.data.sources import load_all, open_sources
from mmembed.errors import BudgetError, DataError, UsageError
from mmembed.features.text import normalise_transcript
from mmembed.recipes.prediction import EmotionPredictor


@dataclass(frozen=True)
class Predict:
    """Which clips, and with what.

    Attributes:
        clips: media files, folders of them, manifests (.jsonl) or folders of prepared shards.
        run: folder that holds pretrain/encoder and emotion, as the demo leaves it.
        text: what is said, when there is one clip and its words are known.
        streams: use no other streams than these, such as "audio+video".
        json: print one JSON object a line instead of a table.
    """

    clips: tyro.conf.Positional[tuple[Path, ...]]
    run: Path = Path("demo")
    text: str | None = None
    streams: str = "+".join(STREAMS)
    json: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each clip; clips that cannot be read get a line on stderr instead."""
    settings = tyro.cli(Predict, prog="mmembed predict", args=argv, description=__doc__)
    sources = open_sources(settings.clips)
    if settings.text is not None and len(sources) != 1:
        raise UsageError(f"--text goes with one clip, {len(sources)} were given")
    try:
        streams = parse_subset(settings.streams)
    except ValueError as error:
        raise UsageError(f"--streams: {error}") from None
    predictor = EmotionPredictor.from_run(settings.run)
    if not settings.json:
        print(
            f"{'clip':32} {'streams':18} {'sentiment':>9} " + " ".join(f"{e:>8}" for e in EMOTIONS)
        )
    failed = 0
    with Decoder() as decoder:
        for source, example in zip(sources, load_all(sources, decoder), strict=True):
            if not isinstance(example, DataError):
                if settings.text is not None:
                    example = replace(example, text=normalise_transcript(settings.text))
                example = example.only(streams)
                if not example.streams:
                    missing = f"has none of {settings.streams}"
                    example = DataError(source.name, "no_streams", missing)
            if isinstance(example, DataError):
                print(f"failed ({example.reason}): {example}", file=sys.stderr)
                failed += 1
            else:
                print(_row(source.name, example, predictor(example), as_json=settings.json))
    if failed:
        raise BudgetError(f"{failed} of {len(sources)} clips could not be used")


def _row(clip: str, example: Example, labels: Labels, *, as_json: bool) -> str:
    used = subset_name(example.streams)
    assert labels.sentiment is not None and labels.emotions is not None
    if as_json:
        named = dict(zip(EMOTIONS, labels.emotions, strict=True))
        return json.dumps({"clip": clip, "streams": used, "sentiment": labels.sentiment, **named})
    emotions = " ".join(f"{value:8.2f}" for value in labels.emotions)
    return f"{clip[-32:]:32} {used:18} {labels.sentiment:9.2f} {emotions}"
