"""Predict sentiment and emotions of clips, or any emotions of texts and clips.

Examples:
    mmembed predict clip.mp4 --run demo
    mmembed predict "what a day" --emotions "joy, anger, hope or optimism" --run runs/demux
    mmembed predict clip.mp4 --emotions "angry, quietly proud" --run runs/queries --encoder ENCODER
"""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tyro

from mmembed.config import MAX_SECONDS, read_json
from mmembed.data.media.fork_server import start_fork_server
from mmembed.errors import BudgetError, DataError, UsageError, printable
from mmembed.io.json import dumps
from mmembed.streams import STREAMS, parse_subset, subset_name

if TYPE_CHECKING:
    from mmembed.data.example import Example
    from mmembed.studies.emotion_predictor import EmotionPredictor
    from mmembed.studies.emotion_queries_predictor import QueriesPredictor
    from mmembed.studies.training_distance import DistanceScore

TEXT_BATCH_SIZE: Final = 64  # texts read before the first prediction
TEXT_WIDTH: Final = 40  # characters of a text in the table
Prediction = tuple[Mapping[str, float], "DistanceScore | None"]
"""Numbers of a clip by name, and its distance to the training clips where that is known."""


@dataclass(frozen=True)
class Predict:
    """Which clips or texts, and with what.

    Attributes:
        inputs: Clips: media files, folders of them, manifests (.jsonl) or folders of prepared
            shards. With --emotions and a run of demux: texts; "-" reads one text from each line of
            standard input.
        run: Folder with pretrain/encoder and emotion, as the demo writes it. With --emotions: the
            output folder of `mmembed finetune demux` or `mmembed finetune emotion_queries`.
        text: Words spoken in the clip, if there is one clip.
        streams: Use only these streams, such as "audio+video".
        emotions: Emotions to predict, separated by commas. For texts, "or" joins words to a
            cluster.
        encoder: Frozen encoder of the run of emotion_queries.
        variant: Variant of the demux run that predicts texts; by default intra.
        json: Print one JSON object for each clip or text instead of a table.
        max_seconds: Longest clip in seconds; by default four hours.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    run: Path = Path("demo")
    text: str | None = None
    streams: str = "+".join(STREAMS)
    emotions: str | None = None
    encoder: Path | None = None
    variant: str | None = None
    json: bool = False
    max_seconds: float = MAX_SECONDS


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each clip or text; clips that cannot be read get a line on stderr instead."""
    settings = tyro.cli(Predict, prog="mmembed predict", args=argv, description=__doc__)
    if settings.emotions is None:
        _predict_sentiment(settings)
        return
    path = settings.run / "run.json"
    recipe = read_json(path).get("name") if path.is_file() else None
    if recipe == "emotion_queries":
        _predict_words(settings, settings.emotions)
    elif recipe == "demux":
        _predict_texts(settings, settings.emotions)
    else:
        raise UsageError(
            f"{settings.run}: holds no run of demux or emotion_queries, as mmembed finetune leaves "
            "it"
        )


def _predict_sentiment(settings: Predict) -> None:
    start_fork_server()
    from mmembed.studies.emotion_predictor import TARGETS, EmotionPredictor

    predictor = EmotionPredictor.from_run(settings.run)

    def predict(example: Example) -> Prediction:
        labels, distance = predictor.with_distance(example)
        sentiment = math.nan if labels.sentiment is None else labels.sentiment
        return dict(zip(TARGETS, (sentiment, *labels.intensities), strict=True)), distance

    _predict_clips(settings, predictor, TARGETS, predict)


def _predict_words(settings: Predict, emotions: str) -> None:
    start_fork_server()
    from mmembed.features.emotion_words import parse_emotions
    from mmembed.studies.emotion_queries_predictor import QueriesPredictor  # imports scikit-learn

    words = parse_emotions(emotions)
    if settings.encoder is None:
        raise UsageError(f"{settings.run}: asks words of clips; give its encoder, --encoder DIR")
    predictor = QueriesPredictor.from_run(settings.run, settings.encoder)
    _predict_clips(settings, predictor, words, lambda example: (predictor(example, words), None))


def _predict_clips(
    settings: Predict,
    predictor: EmotionPredictor | QueriesPredictor,
    columns: Sequence[str],
    predict: Callable[[Example], Prediction],
) -> None:
    """Print what the model was trained on, then a row for each clip."""
    from mmembed.data.inputs import open_sources
    from mmembed.features.text import normalise_transcript
    from mmembed.studies.training_distance import OUTSIDE

    sources = open_sources(map(Path, settings.inputs), longest=settings.max_seconds)
    if settings.text is not None and len(sources) != 1:
        raise UsageError(f"--text goes with one clip, {len(sources)} were given")
    try:
        streams = parse_subset(settings.streams)
    except ValueError as error:
        raise UsageError(f"--streams: {error}") from None
    trained_on, encoder_trained_on = predictor.run.trained_on, predictor.embedder.trained_on
    widths = [max(8, len(name)) for name in columns]
    if not settings.json:
        heads = [f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)]
        print(f"trained on: {printable(trained_on)}")
        print(f"encoder trained on: {printable(encoder_trained_on)}")
        print(f"{'clip':32} {'streams':18} {' '.join(heads)} farther than")
    failed = outside = 0
    loaded = predictor.embedder.decoder.load(sources)
    for source, example in zip(sources, loaded, strict=True):
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
            continue
        for note in example.info.media:
            print(f"note: {source.name}: {note}", file=sys.stderr)
        used = subset_name(example.streams)
        values, distance = predict(example)
        outside += distance is not None and distance.outside
        if settings.json:
            fields = {
                "clip": source.name,
                "streams": used,
                **values,
                "trained_on": trained_on,
                "encoder_trained_on": encoder_trained_on,
                "farther_than": None if distance is None else distance.quantile,
                "outside": None if distance is None else distance.outside,
            }
            print(dumps(fields))
        else:
            cells = [_cell(values[c], width) for c, width in zip(columns, widths, strict=True)]
            row = f"{printable(source.name)[-32:]:32} {used:18} {' '.join(cells)}"
            print(f"{row} {_distance_cell(distance)}")
    if outside:
        print(f"warning: {outside} of {len(sources)} clips: {OUTSIDE}", file=sys.stderr)
    if failed:
        raise BudgetError(f"{failed} of {len(sources)} clips could not be used")


def _predict_texts(settings: Predict, emotions: str) -> None:
    """Print what the model was trained on once there is a text, then a row for each text."""
    from mmembed.features.emotion_words import parse_emotions
    from mmembed.studies.demux_predictor import TextPredictor  # imports scikit-learn

    words = parse_emotions(emotions)
    predictor = TextPredictor.from_run(settings.run, settings.variant)
    widths = [max(8, len(word)) for word in words]
    texts, rows = _texts(settings.inputs), 0
    while batch := list(itertools.islice(texts, TEXT_BATCH_SIZE)):
        for text, values in zip(batch, predictor(batch, words).tolist(), strict=True):
            if settings.json:
                found = dict(zip(words, values, strict=True))
                row = {"text": text, "emotions": found, "trained_on": predictor.run.trained_on}
                print(dumps(row, ensure_ascii=False))
            else:
                if not rows:
                    heads = [f"{word:>{width}}" for word, width in zip(words, widths, strict=True)]
                    print(f"trained on: {printable(predictor.run.trained_on)}")
                    print(f"{'text':{TEXT_WIDTH}} {' '.join(heads)}")
                cells = [f"{x:{width}.2f}" for x, width in zip(values, widths, strict=True)]
                print(f"{printable(text)[:TEXT_WIDTH]:{TEXT_WIDTH}} {' '.join(cells)}")
            rows += 1
    if not rows:
        raise UsageError("no text: give some, or - to read one from each line of standard input")


def _texts(inputs: Sequence[str]) -> Iterator[str]:
    """Of the command line; "-" stands for the lines of standard input."""
    for text in inputs:
        lines = sys.stdin if text == "-" else [text]
        yield from (line.strip() for line in lines if line.strip())


def _cell(value: float, width: int) -> str:
    """A dash for what no training clip was labelled for."""
    return f"{'-':>{width}}" if math.isnan(value) else f"{value:{width}.2f}"


def _distance_cell(distance: DistanceScore | None) -> str:
    if distance is None:
        return f"{'?':>7}"
    return f"{distance.quantile:7.1%}" + (" outside" if distance.outside else "")
