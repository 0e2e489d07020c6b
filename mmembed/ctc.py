"""What a CTC output says: the likeliest tokens, and where known tokens lie in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.losses import ctc_steps_needed

STAY, STEP, SKIP = 0, 1, 2  # how a path comes to a state: from itself, the one before, two before


def greedy_tokens(best: Tensor, blank: int) -> list[int]:
    """(T,) best class of each frame -> tokens: repetitions joined, blanks removed."""
    return [token for token in torch.unique_consecutive(best).tolist() if token != blank]


def align(log_probs: NDArray[np.float32], tokens: Sequence[int], blank: int) -> list[range]:
    """Where each token lies on the likeliest CTC path that spells them all (Viterbi).

    Our own, since torchaudio ends with 2.11; the tests compare it with
    `torchaudio.functional.forced_align`.

    Args:
        log_probs: (T, C) log-probabilities of each frame.
        tokens: one or more class ids, none of them `blank`.
        blank: the class of the blank.

    Returns:
        For each token the frames that emit it, at least one.

    Raises:
        ValueError: T frames are too few for so many tokens.
    """
    if not tokens or ctc_steps_needed(list(tokens)) > len(log_probs):
        raise ValueError(f"{len(tokens)} tokens cannot be spelt in {len(log_probs)} frames")
    states = np.full(2 * len(tokens) + 1, blank)  # blank, token, blank, token, ..., blank
    states[1::2] = tokens
    skippable = np.zeros(len(states), bool)
    skippable[3::2] = states[3::2] != states[1:-2:2]
    emitted = log_probs[:, states].astype(np.float64)
    scores = np.full((3, len(states)), -np.inf)  # of the best path by how it comes
    scores[0, :2] = emitted[0, :2]
    came = np.zeros(emitted.shape, np.uint8)
    best = scores[0].copy()
    for frame in range(1, len(emitted)):
        scores[STAY] = best
        scores[STEP, 1:] = best[:-1]
        scores[SKIP, 2:] = np.where(skippable[2:], best[:-2], -np.inf)
        came[frame] = scores.argmax(0)
        best = scores.max(0) + emitted[frame]
    state = len(states) - (1 if best[-1] >= best[-2] else 2)
    path = np.empty(len(emitted), np.int64)
    for frame in range(len(emitted) - 1, -1, -1):
        path[frame] = state
        state -= int(came[frame, state])
    places = (np.flatnonzero(path == 2 * number + 1) for number in range(len(tokens)))
    return [range(int(found[0]), int(found[-1]) + 1) for found in places]
