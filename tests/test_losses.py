"""Losses by hand and against independent references."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F

from mmembed.batch import Packed, Padded
from mmembed.losses import (
    class_cross_entropy,
    coral,
    covariance,
    ctc_loss,
    ctc_steps_needed,
    margin_logits,
    masked_squared_error,
)


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
    found = ctc_loss(packed, Padded.stack([torch.tensor([1, 2])]), blank=0)
    torch.testing.assert_close(found, torch.tensor([-math.log(total) / 2]))


def test_ctc_of_an_unlabelled_item_is_zero() -> None:
    packed = Packed(torch.randn(5, 3).log_softmax(1), torch.tensor([3, 2]))
    transcripts = Padded.stack([torch.tensor([1]), torch.zeros(0, dtype=torch.int64)])
    found = ctc_loss(packed, transcripts, blank=0)
    assert found[0] > 0 and found[1] == 0


def test_ctc_steps_needed() -> None:
    assert ctc_steps_needed([]) == 0
    assert ctc_steps_needed([5, 6, 5]) == 3
    assert ctc_steps_needed([5, 5, 5, 6]) == 6


def test_margin_lowers_the_target_alone() -> None:
    cosines = torch.tensor([[0.5, 0.1], [0.2, 0.3]])
    found = margin_logits(cosines, torch.tensor([0, -1]), margin=0.2, scale=10.0)
    torch.testing.assert_close(found, torch.tensor([[3.0, 1.0], [2.0, 3.0]]))


def test_masked_errors_by_hand() -> None:
    predicted = torch.tensor([1.0, 5.0])
    target = torch.tensor([3.0, float("nan")])
    assert masked_squared_error(predicted, target).tolist() == [4.0, 0.0]
    rows = torch.tensor([[1.0, 2.0]])
    assert masked_squared_error(rows, torch.tensor([[0.0, 0.0]])).tolist() == [2.5]
    some = torch.tensor([[0.0, float("nan")]])
    assert masked_squared_error(rows, some).tolist() == [1.0]


def test_unlabelled_class_is_zero() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    found = class_cross_entropy(logits, torch.tensor([0, -1]))
    torch.testing.assert_close(found[0], F.cross_entropy(logits[:1], torch.tensor([0])))
    assert found[1] == 0


def test_coral_by_hand() -> None:
    """Covariances [[2, 2], [2, 2]] and [[1, 0], [0, 3]]: (1 + 4 + 4 + 1) / (4 * 2^2)."""
    source = torch.tensor([[1.0, 1], [3, 3]])
    target = torch.tensor([[0.0, 0], [1, -(3**0.5)], [2, 0]]) @ torch.eye(2)
    target[:, 1] = torch.tensor([1.0, -2, 1])
    torch.testing.assert_close(covariance(source), torch.full((2, 2), 2.0))
    torch.testing.assert_close(covariance(target), torch.diag(torch.tensor([1.0, 3])))
    torch.testing.assert_close(coral(source, target), torch.tensor(10 / 16))


def test_coral_is_zero_for_equal_covariances_and_blind_to_means() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(9, 4), torch.randn(6, 4)
    assert coral(x, x.flip(0) + 5) < 1e-10
    assert coral(x, -x) < 1e-10
    torch.testing.assert_close(coral(x + 2, y - 3), coral(x, y))
    torch.testing.assert_close(coral(y, x), coral(x, y))
    torch.testing.assert_close(coral(3 * x, 3 * y), 81 * coral(x, y))


def test_covariance_equals_that_of_torch() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 3) * 2 + 4
    torch.testing.assert_close(covariance(x), torch.cov(x.T))


def test_coral_gradients_reach_both_sides_and_agree_with_differences() -> None:
    torch.manual_seed(0)
    source = torch.randn(4, 3, requires_grad=True)
    target = torch.randn(5, 3, requires_grad=True)
    coral(source, target).backward()
    for side in (source, target):
        assert side.grad is not None and bool((side.grad != 0).any(1).all())
        direction = torch.randn_like(side)
        step = 1e-2
        with torch.no_grad():
            moved = [side + sign * step * direction for sign in (1, -1)]
            pairs = [(m, target) if side is source else (source, m) for m in moved]
            slope = (coral(*pairs[0]) - coral(*pairs[1])) / (2 * step)
        torch.testing.assert_close((side.grad * direction).sum(), slope, rtol=5e-3, atol=1e-4)


def test_coral_of_less_than_two_items_is_zero() -> None:
    many = torch.randn(5, 3)
    for few in (many[:0], many[:1]):
        assert coral(few, many) == 0 and coral(many, few) == 0


def test_coral_has_the_stated_floor_from_sampling() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(50, 2, 32, 64, generator=generator)
    mean = torch.stack([coral(x, y) for x, y in draws]).mean()
    assert abs(float(mean) * 2 * 32 - 1) < 0.1
