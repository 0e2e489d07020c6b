"""Sentiment and emotions of video files; any emotions, by their words, of texts.

mmembed predict clip.mp4 --run demo
mmembed predict "what a day" --emotions "joy, anger, hope or optimism" --run runs/demux
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
    """Which clips or texts, and with what.

    Attributes:
        inputs: clips: media files, folders of them, manifests (.jsonl) or folders of prepared
            shards. With --emotions texts; "-" reads one from each line of standard input.
        run: folder that holds pretrain/encoder and emotion, as the demo leaves it; for texts one
            that `mmembed finetune demux` wrote.
        text: what is said, when there is one clip and its words are known.
        streams: use no other streams than these, such as "audio+video".
        emotions: what to look for in texts: words with commas between them; "or" makes a cluster.
        variant: the method that judges texts, by default intra.
        json: print one JSON object a line instead of a table.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    run: Path = Path("demo")
    text: str | None = None
    streams: str = "+".join(STREAMS)
    emotions: str | None = None
    variant: str | None = None
    json: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each clip or text; clips that cannot be read get a line on stderr instead."""
    settings = tyro.cli(Predict, prog="mmembed predict", args=argv, description=__doc__)
    if settings.emotions is not None:
        from mmembed.commands.predict_texts import predict_texts  # what clips need not wait for

        predict_texts(
            settings.inputs,
            settings.emotions,
            settings.run,
            settings.variant,
            as_json=settings.json,
        )
        return
    sources = open_sources(map(Path, settings.inputs))
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
