"""ULGM on paper: four items, the fusion and one stream, features of two dimensions."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmembed.methods.self_mm import LabelBank, Seen, generated_label

DOUBLE = torch.float64


def seen(rows: list[int], sentiment: list[float], features: list[list[float]]) -> Seen:
    present = torch.ones(len(rows), 2, dtype=torch.bool)
    return Seen(
        torch.tensor(rows),
        torch.tensor(sentiment, dtype=DOUBLE),
        present,
        torch.tensor(features, dtype=DOUBLE),
    )


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found, torch.tensor(expected, dtype=DOUBLE), rtol=0, atol=1e-6)


def bank_after_epoch_1() -> LabelBank:
    bank = LabelBank([2, 2], items=4, limit=3.0).double()
    #                        F_m     F_s
    features = [
        [0.0, 0.0, 0.0, 4.0],
        [6.0, 0.0, 0.0, 0.0],
        [0.0, 8.0, 8.0, 0.0],
        [6.0, 8.0, 8.0, 4.0],
    ]
    bank.update(seen([0, 1, 2, 3], [2.0, 1.0, -1.0, -2.0], features), epoch=1)
    return bank


def test_epoch_1_copies_the_labels() -> None:
    bank = bank_after_epoch_1()
    close(bank.labels, [[2, 1, -1, -2], [2, 1, -1, -2]])
    # Positive are items 0 and 1, negative 2 and 3.
    close(torch.stack(bank.centres(0)), [[3, 0], [3, 8]])
    close(torch.stack(bank.centres(1)), [[0, 2], [8, 2]])


def test_two_epochs_by_hand() -> None:
    bank = bank_after_epoch_1()

    # Epoch 2, first step: items 0 and 3, by the centres (3, 0), (3, 8) and (0, 2), (8, 2).
    # Item 0: F_m = (3, 2): d+ = 2, d- = 6, alpha_m = (6 - 2) / 2 = 2.
    #         F_s = (1, 2): d+ = 1, d- = 7, alpha_s = (7 - 1) / 1 = 6.
    #         u = (6 / 2 * 2 + 2 + 6 - 2) / 2 = 6, clamped to 3.
    #         y_s = 1/3 * 2 + 2/3 * 3 = 8/3 = 2.6666667.
    # Item 3: F_m = (9, 8): d+ = sqrt(36 + 64) = 10, d- = 6, alpha_m = -4 / 10 = -0.4.
    #         F_s = (6, 2): d+ = 6, d- = 2, alpha_s = -4 / 6 = -0.6666667.
    #         u = (0.6666667 / 0.4 * -2 - 2 - 0.6666667 + 0.4) / 2 = -1.6666667 - 1.1333333 = -2.8.
    #         y_s = 1/3 * -2 + 2/3 * -2.8 = -2.5333333.
    bank.update(seen([0, 3], [2.0, -2.0], [[3.0, 2.0, 1.0, 2.0], [9.0, 8.0, 6.0, 2.0]]), epoch=2)
    close(bank.labels, [[2, 1, -1, -2], [2.6666667, 1, -1, -2.5333333]])
    # C_m+ of (3, 2), (6, 0); C_m- of (0, 8), (9, 8).
    # C_s+ of (1, 2), (0, 0); C_s- of (8, 0), (6, 2).
    close(torch.stack(bank.centres(0)), [[4.5, 1], [4.5, 8]])
    close(torch.stack(bank.centres(1)), [[0.5, 1], [7, 1]])

    # Second step: items 1 and 2, whose labels change sign.
    # Item 1: F_m = (4.5, 3): d+ = 2, d- = 5, alpha_m = 3 / 2 = 1.5.
    #         F_s = (4.5, 1): d+ = 4, d- = 2.5, alpha_s = -1.5 / 4 = -0.375.
    #         u = (-0.375 / 1.5 * 1 + 1 - 0.375 - 1.5) / 2 = -0.125 - 0.4375 = -0.5625.
    #         y_s = 1/3 * 1 + 2/3 * -0.5625 = -0.0416667.
    # Item 2: F_m = (4.5, 6): d+ = 5, d- = 2, alpha_m = -3 / 5 = -0.6.
    #         F_s = (3, 1): d+ = 2.5, d- = 4, alpha_s = 1.5 / 2.5 = 0.6.
    #         u = (0.6 / -0.6 * -1 - 1 + 0.6 + 0.6) / 2 = 0.5 + 0.1 = 0.6.
    #         y_s = 1/3 * -1 + 2/3 * 0.6 = 0.0666667.
    bank.update(seen([1, 2], [1.0, -1.0], [[4.5, 3.0, 4.5, 1.0], [4.5, 6.0, 3.0, 1.0]]), epoch=2)
    close(bank.labels, [[2, 1, -1, -2], [2.6666667, -0.0416667, 0.0666667, -2.5333333]])
    # C_m+ of (3, 2), (4.5, 3); C_m- of (4.5, 6), (9, 8). The stream's positive items now are 0 and
    # 2: C_s+ of (1, 2), (3, 1); C_s- of (4.5, 1), (6, 2).
    close(torch.stack(bank.centres(0)), [[3.75, 2.5], [6.75, 7]])
    close(torch.stack(bank.centres(1)), [[2, 1.5], [5.25, 1.5]])

    # Epoch 3: item 0 alone; momentum 2/4 and 2/4.
    # F_m = (3.75, 7): d+ = 4.5, d- = 3, alpha_m = -1.5 / 4.5 = -0.3333333.
    # F_s = (3.25, 1.5): d+ = 1.25, d- = 2, alpha_s = 0.75 / 1.25 = 0.6.
    # u = (0.6 / -0.3333333 * 2 + 2 + 0.6 + 0.3333333) / 2 = -1.8 + 1.4666667 = -0.3333333.
    # y_s = 1/2 * 2.6666667 - 1/2 * 0.3333333 = 1.1666667.
    bank.update(seen([0], [2.0], [[3.75, 7.0, 3.25, 1.5]]), epoch=3)
    close(bank.labels, [[2, 1, -1, -2], [1.1666667, -0.0416667, 0.0666667, -2.5333333]])
    close(bank.features[0], [3.75, 7, 3.25, 1.5])


def test_generated_labels_are_clamped_on_both_sides() -> None:
    alpha, fused = torch.tensor([6.0, -6.0, 1.0]), torch.tensor([2.0, -2.0, 2.0])
    sentiment = torch.tensor([2.0, -2.0, 1.0])
    # (6/2 * 2 + 2 + 4) / 2 = 6; its mirror image; (1/2 * 1 + 1 + 1 - 2) / 2 = 0.25.
    made = generated_label(alpha, fused, sentiment, 1.0)
    torch.testing.assert_close(made, torch.tensor([1.0, -1.0, 0.25]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_without_one_class_labels_stay(sign: float) -> None:
    bank = LabelBank([2, 2], items=4, limit=3.0).double()
    sentiment = [sign * 2.0, sign * 1.0, 0.0]  # 0 is in neither class
    features = torch.rand(3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)).tolist()
    for epoch in (1, 2, 3):
        bank.update(seen([0, 1, 2], sentiment, features), epoch)
    close(bank.labels, [[*sentiment, 0], [*sentiment, 0]])
    assert bank.features.isfinite().all()


def test_a_class_that_only_a_stream_lacks() -> None:
    bank = bank_after_epoch_1()
    bank.labels[1] = bank.labels[1].abs()
    before = bank.labels.clone()
    bank.update(seen([0, 3], [2.0, -2.0], [[3.0, 2.0, 1.0, 2.0], [9.0, 8.0, 6.0, 2.0]]), epoch=2)
    assert torch.equal(bank.labels, before)


def test_of_a_row_that_comes_twice_the_later_counts() -> None:
    first = seen([6, 2, 6], [1.0, 2.0, 1.0], [[1.0] * 4, [2.0] * 4, [3.0] * 4])
    second = seen([2, 0], [2.0, -1.0], [[4.0] * 4, [5.0] * 4])
    joined = Seen.join([first, second])
    assert joined.rows.tolist() == [0, 2, 6]
    close(joined.sentiment, [-1, 2, 1])
    close(joined.features[:, 0], [5, 4, 3])
    assert joined.present.all() and joined.present.shape == (3, 2)
