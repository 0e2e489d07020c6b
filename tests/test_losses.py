"""Losses by hand and against independent references."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F

from mmembed import losses
from mmembed.batch import Packed, Padded


def test_ctc_equals_the_sum_over_all_alignments() -> None:
    """Every path of 3 frames over {blank, 1, 2} that collapses to (1, 2), summed by brute force."""
    torch.manual_seed(0)
    log_probs = torch.randn(3, 3).log_softmax(1)
    total = 0.0
    for path in itertools.product(range(3), repeat=3):
        collapsed = [token for token, _ in itertools.groupby(path) if token != 0]
        if collapsed == [1, 2]:
            total += math.exp(sum(log_probs[t, token].item() for t, token in enumerate(path)))
    packed = Packed(log_probs, torch.tensor([3]))
    found = losses.ctc(packed, Padded.stack([torch.tensor([1, 2])]), blank=0)
    torch.testing.assert_close(found, torch.tensor([-math.log(total) / 2]))


def test_ctc_of_an_unlabelled_item_is_zero() -> None:
    packed = Packed(torch.randn(5, 3).log_softmax(1), torch.tensor([3, 2]))
    transcripts = Padded.stack([torch.tensor([1]), torch.zeros(0, dtype=torch.int64)])
    found = losses.ctc(packed, transcripts, blank=0)
    assert found[0] > 0 and found[1] == 0


def test_ctc_steps_needed() -> None:
    assert losses.ctc_steps_needed([]) == 0
    assert losses.ctc_steps_needed([5, 6, 5]) == 3
    assert losses.ctc_steps_needed([5, 5, 5, 6]) == 6


def test_margin_lowers_the_target_alone() -> None:
    cosines = torch.tensor([[0.5, 0.1], [0.2, 0.3]])
    found = losses.margin_logits(cosines, torch.tensor([0, -1]), margin=0.2, scale=10.0)
    torch.testing.assert_close(found, torch.tensor([[3.0, 1.0], [2.0, 3.0]]))


def test_masked_errors_by_hand() -> None:
    predicted = torch.tensor([1.0, 5.0])
    target = torch.tensor([3.0, float("nan")])
    assert losses.masked_squared_error(predicted, target).tolist() == [4.0, 0.0]
    assert losses.masked_absolute_error(predicted, target).tolist() == [2.0, 0.0]
    rows = torch.tensor([[1.0, 2.0]])
    assert losses.masked_squared_error(rows, torch.tensor([[0.0, 0.0]])).tolist() == [2.5]


def test_unlabelled_class_is_zero() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    found = losses.class_cross_entropy(logits, torch.tensor([0, -1]))
    torch.testing.assert_close(found[0], F.cross_entropy(logits[:1], torch.tensor([0])))
    assert found[1] == 0
