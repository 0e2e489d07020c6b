"""Emotions of texts, by words that need not have been trained on; a part of `mmembed predict`."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmembed.errors import UsageError, printable
from mmembed.features.emotion_words import parse_emotions
from mmembed.io.json import dumps
from mmembed.studies.demux_predictor import TextPredictor

STDIN = "-"
BATCH_SIZE = 64  # texts read before the first prediction
SHOWN = 40  # characters of a text in the table


def predict_texts(
    inputs: Sequence[str], emotions: str, run: Path, variant: str | None, *, as_json: bool
) -> None:
    """Print a row for each text, or a line of JSON.

    Args:
        inputs: texts; "-" stands for the lines of standard input.
        emotions: "joy, hope or optimism".
        run: see `TextPredictor.from_run`.
        variant: likewise.
        as_json: a line is {"text": TEXT, "emotions": {WORD: PROBABILITY}, "trained_on": LINE}.
    """
    words = parse_emotions(emotions)
    widths = [max(8, len(word)) for word in words]
    predictor = TextPredictor.from_run(run, variant)
    texts, first = _texts(inputs), True
    while some := list(itertools.islice(texts, BATCH_SIZE)):
        rows = predictor(some, words).tolist()
        if first and not as_json:
            print(f"trained on: {printable(predictor.trained_on)}")
            print(_line("text", [f"{word:>{w}}" for word, w in zip(words, widths, strict=True)]))
        first = False
        for text, probabilities in zip(some, rows, strict=True):
            if as_json:
                by_word = dict(zip(words, probabilities, strict=True))
                row = {"text": text, "emotions": by_word, "trained_on": predictor.trained_on}
                print(dumps(row, ensure_ascii=False))
            else:
                cells = [f"{p:{w}.2f}" for p, w in zip(probabilities, widths, strict=True)]
                print(_line(printable(text), cells))
    if first:
        raise UsageError("no text: give some, or - to read one from each line of standard input")


def _line(text: str, cells: Sequence[str]) -> str:
    return f"{text[:SHOWN]:{SHOWN}} " + " ".join(cells)


def _texts(inputs: Sequence[str]) -> Iterator[str]:
    for text in inputs:
        lines = sys.stdin if text == STDIN else [text]
        yield from (line.strip() for line in lines if line.strip())
