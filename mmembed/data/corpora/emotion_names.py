"""One vocabulary of emotion categories for all corpora.

Each reader maps the codes of its corpus to these. An emotion without a counterpart has a name of
its own here ("boredom", "contempt"), and "other" is what annotators choose when no name fits; where
annotators do not agree there is no category.
"""

from __future__ import annotations

from typing import Final

CATEGORIES: Final = (
    "neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised",
    "boredom", "contempt", "excited", "frustrated", "other",
)  # fmt: skip

_SYNONYMS: Final = {
    "neutrality": "neutral", "none": "neutral", "calmness": "calm",
    "happiness": "happy", "joy": "happy", "sadness": "sad", "anger": "angry",
    "fear": "fearful", "disgusted": "disgust", "surprise": "surprised", "bored": "boredom",
    "excitement": "excited", "frustration": "frustrated",
}  # fmt: skip


def category(name: str) -> str:
    """A name as people write it ("Anger", "joy") in the vocabulary; unknown ones in lower case."""
    lower = name.strip().lower()
    return _SYNONYMS.get(lower, lower)
