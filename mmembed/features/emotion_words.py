"""Emotion words: clusters as users write them, and their places on Plutchik's wheel."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from mmembed.errors import UsageError

WHEEL: Final = (
    "joy", "love", "trust", "submission", "fear", "awe", "surprise", "disapproval",
    "sadness", "remorse", "disgust", "contempt", "anger", "aggressiveness", "anticipation",
    "optimism",
)  # fmt: skip
"""Plutchik's wheel (Plutchik 1980, "A general psychoevolutionary theory of emotion"), 22.5 degrees
a step: the eight basic emotions, and between two neighbours the dyad that they make."""

ANGLES: Final = {
    **{word: 2 * math.pi * place / len(WHEEL) for place, word in enumerate(WHEEL)},
    # Not on the wheel: the released code of arXiv 2210.15842 sets it opposite to optimism.
    "pessimism": 2 * math.pi * (WHEEL.index("optimism") + len(WHEEL) / 2) / len(WHEEL),
}
"""Emotion word -> radians."""


def wheel_correlation(emotions: Sequence[str]) -> Tensor:
    """(E, E) cosines of the angles between emotions, all of them single words of `ANGLES`.

    Raises:
        UsageError: an emotion has no place on the wheel.
    """
    unknown = [emotion for emotion in emotions if emotion not in ANGLES]
    if unknown:
        raise UsageError(
            f"no place on Plutchik's wheel for {', '.join(unknown)}; it has {', '.join(ANGLES)}"
        )
    angles = torch.tensor([ANGLES[emotion] for emotion in emotions], dtype=torch.float64)
    return (angles[:, None] - angles).cos().float()


def parse_emotions(text: str) -> tuple[str, ...]:
    """`"joy, hope or optimism"` -> `("joy", "hope or optimism")`.

    Raises:
        UsageError: no emotion at all, or one of them twice.
    """
    emotions = tuple(" or ".join(members(part)) for part in text.split(",") if part.strip())
    if not emotions:
        raise UsageError(f"no emotion in {text!r}: give words with commas between them")
    flat = [word for emotion in emotions for word in members(emotion)]
    twice = sorted({word for word in flat if flat.count(word) > 1})
    if twice:
        raise UsageError(f"emotion {twice[0]!r} is given twice")
    return emotions


def members(emotion: str) -> tuple[str, ...]:
    """The emotions of a cluster: `"hope or quiet pride"` -> `("hope", "quiet pride")`."""
    parts = [" ".join(part.split()) for part in re.split(r"(?<!\S)or(?!\S)", emotion)]
    if not all(parts):
        raise UsageError(f"emotion {emotion!r}: a word is missing beside 'or'")
    return tuple(parts)
