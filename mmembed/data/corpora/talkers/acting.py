"""Acting: what a feeling does to a voice and a face, and what the labels of a clip are.

In half of the clips words, voice and face express one feeling, each with its own intensity; in
the others each has a feeling of its own, and they often contradict each other. The labels are the
sum of the three, with no noise:

    sentiment  = clip(1.2 * sum over parts of VALENCE[feeling] * intensity, -3, 3)
    emotion(e) = min(1.5 * sum over the parts that express e of intensity, 3)

No part alone fixes either; all three together fix both.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Final, TypeVar

from mmembed.data.corpora.talkers.face import Pose
from mmembed.data.corpora.talkers.grammar import NEUTRAL, Expression
from mmembed.data.manifest.utterance import EMOTIONS, Labels

VALENCE: Final = {
    NEUTRAL: 0.0, "happy": 1.0, "sad": -0.8, "anger": -0.9, "surprise": 0.4, "disgust": -0.8,
    "fear": -0.7,
}  # fmt: skip
FREQUENCY: Final = {  # relative; sentiment comes out about balanced
    NEUTRAL: 12, "happy": 34, "sad": 11, "anger": 10, "surprise": 14, "disgust": 9, "fear": 10,
}  # fmt: skip
SENTIMENT_SCALE: Final = 1.2
EMOTION_SCALE: Final = 1.5
AGREEMENT: Final = 0.5  # fraction of clips in which all three parts express one feeling
LEAST_ACTED: Final = 0.6  # intensity of a voice or face that expresses a feeling at all


@dataclass(frozen=True)
class Prosody:
    """How a voice differs from its neutral state.

    Attributes:
        pitch: in espeak-ng's steps, 50 of them an octave.
        pitch_range: in espeak-ng's steps, of 0 to 100.
        rate: octaves of the speaking rate.
        loudness: decibels.
        brightness: fraction of the sound's first difference added to it; negative dulls.
    """

    pitch: float = 0.0
    pitch_range: float = 0.0
    rate: float = 0.0
    loudness: float = 0.0
    brightness: float = 0.0


PROSODIES: Final = {
    NEUTRAL: Prosody(),
    "happy": Prosody(16, 30, 0.2, 4, 1.2),
    "sad": Prosody(-16, -35, -0.35, -8, -0.6),
    "anger": Prosody(-10, -5, 0.15, 6, -0.3),
    "surprise": Prosody(26, 45, 0.0, 4, 0.8),
    "disgust": Prosody(-20, -10, -0.25, -2, -0.5),
    "fear": Prosody(12, -40, 0.3, -8, -0.4),
}
POSES: Final = {
    NEUTRAL: Pose(),
    "happy": Pose(corners=0.9, lids=0.85, brows=0.2, spread=0.3),
    "sad": Pose(corners=-0.8, slant=0.9, lids=0.65),
    "anger": Pose(slant=-1.0, brows=-0.7, corners=-0.4, lids=0.85),
    "surprise": Pose(brows=1.0, lids=1.35, open=0.25, spread=-0.3),
    "disgust": Pose(wrinkle=1.0, brows=-0.4, corners=-0.6, lids=0.55),
    "fear": Pose(brows=0.6, slant=0.9, lids=1.3, corners=-0.35, spread=0.5),
}


def draw_feeling(rng: random.Random) -> str:
    """A feeling, as often as `FREQUENCY` says."""
    return rng.choices(list(FREQUENCY), list(FREQUENCY.values()))[0]


def draw_expression(felt: str | None, rng: random.Random) -> Expression:
    """What a voice or a face expresses: what is felt, or with None any feeling."""
    feeling = draw_feeling(rng) if felt is None else felt
    intensity = round(rng.uniform(LEAST_ACTED, 1.0), 2)
    return Expression(feeling, 0.0 if feeling == NEUTRAL else intensity)


def label(words: Expression, voice: Expression, face: Expression) -> Labels:
    """The labels of a clip; the formulas are those at the top of this file."""
    parts = (words, voice, face)
    sentiment = SENTIMENT_SCALE * sum(VALENCE[part.feeling] * part.intensity for part in parts)
    emotions = (
        EMOTION_SCALE * sum(part.intensity for part in parts if part.feeling == emotion)
        for emotion in EMOTIONS
    )
    return Labels(
        sentiment=round(min(3.0, max(-3.0, sentiment)), 3),
        emotions=tuple(round(min(3.0, emotion), 3) for emotion in emotions),
    )


def prosody_of(voice: Expression) -> Prosody:
    """How the voice sounds that expresses this."""
    return _acted(PROSODIES, voice)


def pose_of(face: Expression) -> Pose:
    """How the face looks that expresses this, while it does not speak."""
    return _acted(POSES, face)


Acted = TypeVar("Acted", Prosody, Pose)


def _acted(full: Mapping[str, Acted], part: Expression) -> Acted:
    """From neutral the way to the full feeling, as far as its intensity, number by number."""
    ends = asdict(full[part.feeling])
    mixed = {
        name: (1 - part.intensity) * start + part.intensity * ends[name]
        for name, start in asdict(full[NEUTRAL]).items()
    }
    return replace(full[NEUTRAL], **mixed)
