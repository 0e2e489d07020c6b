"""CTC outputs read by hand, and our alignment beside torchaudio's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from mmembed.ctc import align, greedy_tokens


def test_greedy_joins_repetitions_and_drops_blanks() -> None:
    assert greedy_tokens(torch.tensor([0, 3, 3, 0, 3, 5, 5, 0])) == [3, 3, 5]
    assert greedy_tokens(torch.zeros(4, dtype=torch.int64)) == []


def test_tokens_lie_where_they_were_emitted() -> None:
    emitted = [0, 2, 2, 0, 0, 2, 1, 1, 0]
    log_probs = np.full((9, 3), -9.0, np.float32)
    log_probs[range(9), emitted] = 0.0
    assert align(log_probs, [2, 2, 1]) == [range(1, 3), range(5, 6), range(6, 8)]


@pytest.mark.parametrize("seed", range(30))
def test_the_path_is_torchaudios(seed: int) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, 5, (1 + seed % 7,), generator=generator).tolist()
    steps = 2 * len(tokens) + seed % 5
    log_probs = torch.randn(steps, 5, generator=generator).log_softmax(1)
    theirs, _ = functional.forced_align(log_probs[None], torch.tensor([tokens]))
    ours = torch.zeros(steps, dtype=torch.int64)
    for token, frames in zip(tokens, align(log_probs.numpy(), tokens), strict=True):
        ours[frames.start : frames.stop] = token
    assert ours.tolist() == theirs[0].tolist()


def test_long_transcripts() -> None:
    """More states than came's own type could count."""
    emitted = [token for number in range(400) for token in (1 + number % 2, 0)]
    log_probs = np.full((800, 3), -9.0, np.float32)
    log_probs[range(800), emitted] = 0.0
    found = align(log_probs, emitted[::2])
    assert found == [range(2 * number, 2 * number + 1) for number in range(400)]


def test_what_does_not_fit_is_refused() -> None:
    log_probs = np.zeros((3, 3), np.float32)
    assert align(log_probs, [1, 1]) == [range(0, 1), range(2, 3)]
    for tokens in ([1, 1, 2], [1, 2, 1, 2], []):
        with pytest.raises(ValueError, match="do not fit in 3 frames"):
            align(log_probs, tokens)


@pytest.mark.parametrize("seed", range(6))
def test_a_band_finds_the_path_that_all_states_find(seed: int) -> None:
    """Where sound and tokens agree, the likeliest state is never far from the right one."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(1, 5, 60).tolist()
    emitted = [
        letter
        for token in tokens
        for letter in [token] * generator.integers(1, 4) + [0] * generator.integers(1, 6)
    ]
    log_probs = generator.normal(0, 0.5, (len(emitted), 5)).astype("f4")
    log_probs[range(len(emitted)), emitted] += 4
    log_probs -= np.log(np.exp(log_probs).sum(1, keepdims=True))
    exact = align(log_probs, tokens)
    assert align(log_probs, tokens, band=24) == exact
    assert all(emitted[frames.start] == token for frames, token in zip(exact, tokens, strict=True))


def test_the_end_stays_within_reach_of_the_band() -> None:
    """All blanks: the likeliest state is the first, until the tokens must be spelt at last."""
    log_probs = np.full((400, 3), -4.0, np.float32)
    log_probs[:, 0] = -0.1
    found = align(log_probs, [1, 2] * 40, band=16)
    assert len(found) == 80 and found[-1].stop <= 400
    assert all(one.stop <= other.start for one, other in itertools.pairwise(found))
