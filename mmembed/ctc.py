"""Decoding and forced alignment of a CTC output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.features.text import BLANK
from mmembed.losses import ctc_steps_needed

BAND: Final = 16_384  # states, some 9 minutes of speech; all those of a clip of 5 minutes


def greedy_tokens(best: Tensor) -> list[int]:
    """(T,) best class of each frame -> tokens: repetitions joined, blanks removed."""
    return [token for token in torch.unique_consecutive(best).tolist() if token != BLANK]


def align(log_probs: NDArray[np.float32], tokens: Sequence[int], band: int = BAND) -> list[range]:
    """Forced alignment: the frames of each token on the likeliest CTC path of all (Viterbi).

    Our own, since torchaudio ends with 2.11; the tests compare it with
    `torchaudio.functional.forced_align`. Memory is `band` times the square root of T: few
    columns are kept, and those between are computed again on the way back.

    Args:
        log_probs: (T, C) log-probabilities of each frame.
        tokens: one or more class ids, none of them `BLANK`.
        band: states (twice the tokens) about the likeliest that are looked at in each frame; where
            there are no more the path is the likeliest of all.

    Returns:
        For each token the frames that emit it, at least one.

    Raises:
        ValueError: T frames are too few for so many tokens, or no path through the band ends.
    """
    frames = len(log_probs)
    if not tokens or ctc_steps_needed(list(tokens)) > frames:
        raise ValueError(f"{len(tokens)} tokens do not fit in {frames} frames")
    trellis = _Trellis(log_probs, tokens, band)
    column = trellis.begin()
    stride = math.isqrt(frames) + 1
    kept = []
    for frame in range(frames):
        if frame:
            column, _ = trellis.advance(column, frame)
        if frame % stride == 0:
            kept.append(column)
    if not np.isfinite(column.scores[-2:]).any():
        raise ValueError(f"{len(tokens)} tokens have no path through {frames} frames")
    state = trellis.size - (1 if column.scores[-1] >= column.scores[-2] else 2)
    path = np.empty(frames, np.int64)
    for number, column in reversed(list(enumerate(kept))):
        start = number * stride
        steps = range(start + 1, min(start + stride + 1, frames))
        ways = []
        for frame in steps:
            column, way = trellis.advance(column, frame)
            ways.append((column.first, way))
        for frame, (first, way) in zip(reversed(steps), reversed(ways), strict=True):
            path[frame] = state
            state -= int(way[state - first])
    path[0] = state
    firsts = np.searchsorted(path, 2 * np.arange(len(tokens)) + 1)
    lasts = np.searchsorted(path, 2 * np.arange(len(tokens)) + 1, "right")
    return [range(int(first), int(last)) for first, last in zip(firsts, lasts, strict=True)]


class _Column(NamedTuple):
    """Scores of the best path to each state of the band, whose first state is `first`."""

    first: int
    scores: NDArray[np.float64]


class _Trellis:
    """The states blank, token, blank, token, ..., blank over time."""

    def __init__(self, log_probs: NDArray[np.float32], tokens: Sequence[int], band: int) -> None:
        self._log_probs = log_probs
        self.size = 2 * len(tokens) + 1
        self._width = min(band, self.size)
        self._states = np.full(self.size, BLANK)
        self._states[1::2] = tokens
        self._skippable = np.zeros(self.size, bool)
        self._skippable[3::2] = self._states[3::2] != self._states[1:-2:2]

    def begin(self) -> _Column:
        """Before the first blank or in the first token."""
        scores = np.full(self._width, -np.inf)
        scores[:2] = self._log_probs[0, self._states[:2]]
        return _Column(0, scores)

    def advance(self, column: _Column, frame: int) -> tuple[_Column, NDArray[np.int64]]:
        """The next column, and how far back each of its states comes from: 0, 1 or 2 states."""
        first = self._follow(column, frame)
        band = slice(first, first + self._width)
        ahead = np.full(first - column.first, -np.inf)
        before = np.concatenate([[-np.inf, -np.inf], column.scores, ahead])[-self._width - 2 :]
        skipped = np.where(self._skippable[band], before[:-2], -np.inf)
        ways = np.stack([before[2:], before[1:-1], skipped])
        scores = ways.max(0) + self._log_probs[frame, self._states[band]]
        return _Column(first, scores), ways.argmax(0)

    def _follow(self, column: _Column, frame: int) -> int:
        """Where the band begins: the likeliest state in its middle, the end within reach."""
        last = self.size - self._width
        if column.first == last:
            return last
        middle = column.first + int(column.scores.argmax()) - self._width // 2
        reach = self.size - 2 - 2 * (len(self._log_probs) - 1 - frame)
        return min(last, max(column.first, middle, reach))
