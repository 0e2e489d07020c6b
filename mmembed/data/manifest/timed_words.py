"""Words with times: what a manifest row says of when each word of its transcript is spoken."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

from mmembed.config import Seconds
from mmembed.features.text import normalise_transcript
from mmembed.io.json import finite_number, shown

ROUNDING: Final[Seconds] = 1e-3
"""By so much a word may end after its utterance: times are rounded where they are written down."""


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is spoken.

    Attributes:
        text: as written; it holds a letter or a digit.
        start: seconds from the start of the utterance.
        end: seconds, not before `start`.
    """

    text: str
    start: Seconds
    end: Seconds


_FIELDS: Final = tuple(field.name for field in fields(TimedWord))


def parse_words(value: object) -> tuple[TimedWord, ...]:
    """Words from JSON: a list of objects {"text": "bin", "start": 0.52, "end": 0.81}.

    Raises:
        ValueError: one line saying what is something else.
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"words must be a list of objects, found {shown(value)}")
    words = []
    for number, word in enumerate(value, start=1):
        if not isinstance(word, Mapping) or set(word) != set(_FIELDS):
            allowed = f"an object with {', '.join(_FIELDS)}"
            raise ValueError(f"word {number} must be {allowed}, found {shown(word)}")
        if not isinstance(word["text"], str):
            raise ValueError(f"word {number}: text must be a string, found {shown(word['text'])}")
        times = (finite_number(f"word {number}: {x}", word[x]) for x in ("start", "end"))
        words.append(TimedWord(word["text"], *times))
    return tuple(words)


def check_words(words: Sequence[TimedWord], transcript: str | None, longest: Seconds) -> None:
    """Refuse, with a ValueError of one line, what cannot be the words of an utterance.

    Args:
        words: in the order of the transcript, none starting before the one ahead of it.
        transcript: whose words they are, but for case and punctuation.
        longest: seconds that the utterance may last.
    """
    if transcript is None:
        raise ValueError("words with times need a transcript")
    before = 0.0
    spoken: list[str] = []
    for number, word in enumerate(words, start=1):
        name = f"word {number}, {shown(word.text)}"
        normal = normalise_transcript(word.text).split()
        if not normal:
            raise ValueError(f"{name}: holds no letter or digit; leave it out")
        if not 0 <= word.start <= word.end:
            raise ValueError(f"{name}: start {word.start}, end {word.end}: 0 <= start <= end")
        if not word.end <= longest + ROUNDING:
            raise ValueError(f"{name}: ends at {word.end} s, its utterance at {longest:.9g} s")
        if word.start < before:
            raise ValueError(f"{name}: starts at {word.start} s, the word ahead at {before} s")
        before = word.start
        spoken += normal
    for found, meant in itertools.zip_longest(spoken, normalise_transcript(transcript).split()):
        if found != meant:
            ahead = f"{shown(found)}" if found is not None else "no more words"
            there = f"{shown(meant)}" if meant is not None else "no more words"
            raise ValueError(f"words are not the transcript: found {ahead} where it has {there}")
