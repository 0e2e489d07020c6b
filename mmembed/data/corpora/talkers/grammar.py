"""A small English grammar whose sentences carry feelings: 126 words, more than 70,000 sentences.

Every sentence has one feeling word, bare, weakened, strengthened or negated, or none at all. What
the words express follows from the rule that made them, it is never guessed from the sentence.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass
from typing import Final

from mmembed.data.manifest.utterance import EMOTIONS

NEUTRAL: Final = "neutral"
FEELINGS: Final = (NEUTRAL, *EMOTIONS)

PEOPLE: Final = (
    "my brother", "our teacher", "the doctor", "his mother", "the driver", "a neighbour",
    "the girl", "that man", "her cousin", "the singer", "the farmer", "my boss",
    "our guest", "the nurse",
)  # fmt: skip
THINGS: Final = (
    "the soup", "this movie", "that story", "the music", "the weather", "this town", "the garden",
    "our holiday", "the game", "your letter", "the new job", "that train", "this hotel",
    "the old house", "the market", "the bread", "your picture", "the coffee", "this village",
)  # fmt: skip
DEEDS: Final = (
    "called", "saw", "found", "visited", "passed", "left", "painted", "finished", "watched",
    "opened", "remembered", "described",
)  # fmt: skip
WHEN: Final = (
    "today", "yesterday", "last night", "this morning", "on monday", "after dinner",
    "before lunch", "once again",
)  # fmt: skip
PLAIN: Final = ("long", "small", "green", "near the river", "on the table", "quite common")

FEELING_WORDS: Final = {  # how a person feels, and how something is
    "happy": (("happy", "glad", "cheerful"), ("good", "wonderful", "lovely")),
    "sad": (("sad", "lonely", "unhappy"), ("sorry", "hopeless", "gloomy")),
    "anger": (("angry", "furious", "annoyed"), ("unfair", "infuriating", "outrageous")),
    "surprise": (("surprised", "amazed", "astonished"), ("surprising", "amazing", "unexpected")),
    "disgust": (("disgusted", "sickened", "repelled"), ("disgusting", "filthy", "rotten")),
    "fear": (("afraid", "scared", "terrified"), ("scary", "dangerous", "frightening")),
}
DEGREES: Final = {"slightly": 0.5, "": 0.75, "so": 1.0, "really": 1.0, "very": 1.0}
DENIALS: Final = ("not", "never")
DENIED: Final = 0.6  # "not good" is less sad than "sad"
OPPOSITE: Final = {"happy": "sad"}  # what a denied feeling amounts to; of all others, happy
NEGATED_FRACTION: Final = 0.2

RESERVED_OF: Final = 3  # one sentence of three is kept out of training


@dataclass(frozen=True)
class Expression:
    """What one part of a clip, its words, voice or face, expresses.

    Attributes:
        feeling: one of `FEELINGS`.
        intensity: in [0, 1]; 0 for neutral.
    """

    feeling: str
    intensity: float

    def __post_init__(self) -> None:
        assert self.feeling in FEELINGS and 0 <= self.intensity <= 1, self
        assert (self.feeling == NEUTRAL) == (self.intensity == 0), self


def make_sentence(feeling: str, reserved: bool, rng: random.Random) -> tuple[str, Expression]:
    """A sentence of 4 to 9 lower-case words that expresses `feeling`.

    Args:
        feeling: one of `FEELINGS`.
        reserved: whether to draw from the sentences kept out of training.
        rng: the only source of randomness.
    """
    while True:
        sentence, expression = _draw(feeling, rng)
        # Kept out of training whatever the seed and the size of the corpus.
        if (zlib.crc32(sentence.encode()) % RESERVED_OF == 0) == reserved:
            return sentence, expression


def _draw(feeling: str, rng: random.Random) -> tuple[str, Expression]:
    if feeling == NEUTRAL:
        person, thing, deed, when = map(rng.choice, (PEOPLE, THINGS, DEEDS, WHEN))
        sentence = rng.choice(
            (
                f"{person} {deed} {thing}",
                f"{person} {deed} {thing} {when}",
                f"{when} {person} {deed} {thing}",
                f"{thing} is {rng.choice(PLAIN)}",
            )
        )
        return sentence, Expression(NEUTRAL, 0.0)
    sources = [emotion for emotion in EMOTIONS if OPPOSITE.get(emotion, "happy") == feeling]
    if rng.random() < NEGATED_FRACTION and sources:
        named, degree, strength = rng.choice(sources), rng.choice(DENIALS), DENIED
    else:
        named = feeling
        degree, strength = rng.choice(list(DEGREES.items()))
    person, thing, when = map(rng.choice, (PEOPLE, THINGS, WHEN))
    felt, quality = (f"{degree} {rng.choice(words)}".strip() for words in FEELING_WORDS[named])
    sentence = rng.choice(
        (
            f"{person} was {felt} {when}",
            f"{when} i was {felt}",
            f"{thing} was {quality}",
            f"{thing} was {quality} {when}",
            f"{person} is {felt} about {thing}",
            f"i think {thing} is {quality}",
            f"{person} said it was {quality}",
        )
    )
    return sentence, Expression(feeling, strength)
