"""Word and character error rates."""

from __future__ import annotations

from collections.abc import Sequence

import jiwer


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """(substitutions + deletions + insertions) / reference words, over all utterances together.

    May exceed 1. Words are split at white space; nothing is normalised here.

    Raises:
        ValueError: the lists differ in length or the references hold no word.
    """
    _check_transcripts(references, hypotheses)
    return float(jiwer.wer(list(references), list(hypotheses)))


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """As `word_error_rate`, over characters, spaces between words included."""
    _check_transcripts(references, hypotheses)
    return float(jiwer.cer(list(references), list(hypotheses)))


def _check_transcripts(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references but {len(hypotheses)} hypotheses")
    if not any(reference.split() for reference in references):
        raise ValueError("the references hold no word: an error rate is not defined")
