"""Word and character error rates."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """(substitutions + deletions + insertions) / reference words, over all utterances together.

    May exceed 1. Words are split at white space; nothing is normalised here. The references hold a
    word each.
    """
    return float(jiwer.wer(list(references), list(hypotheses)))


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As `word_error_rate`, over characters, spaces between words included."""
    return float(jiwer.cer(list(references), list(hypotheses)))
