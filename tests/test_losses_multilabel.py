"""Losses of several labels against double loops in plain Python, and numbers worked by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mmembed import losses

PATTERNS = torch.tensor(
    [[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0]],
    dtype=torch.float32,
)  # two sets; P empty; N empty; one label in P; one label in N
LOGITS = torch.randn(5, 5, generator=torch.Generator().manual_seed(0))
AFFINITY = (torch.rand(5, 5, generator=torch.Generator().manual_seed(1)) + 0.1).clamp(max=1)
AFFINITY = (AFFINITY + AFFINITY.T) / 2

Rows = list[list[float]]


def sets(labels: list[float]) -> tuple[list[int], list[int]]:
    present = [i for i, label in enumerate(labels) if label == 1]
    return present, [i for i in range(len(labels)) if i not in present]


def inter_by_loops(z: list[float], labels: list[float], w: Rows | None) -> float:
    present, absent = sets(labels)
    terms = []
    for p in present:
        for n in absent:
            gap = 1 / (1 + math.exp(-z[n])) - 1 / (1 + math.exp(-z[p]))
            terms.append((1 - w[p][n] if w else 1) * math.exp(gap))
    return sum(terms) / len(terms) if terms else 0.0


def intra_by_loops(z: list[float], labels: list[float], w: Rows | None) -> float:
    present, absent = sets(labels)
    total = 0.0
    for chosen, sign in ((absent, 1), (present, -1)):
        terms = []
        for i in chosen:
            for j in chosen:
                if i < j:
                    terms.append((w[i][j] if w else 1) * math.exp(sign * (z[i] + z[j])))
        total += sum(terms) / len(terms) if terms else 0.0
    return total / 2 if present and absent else total


def released_intra_by_loops(z: list[float], labels: list[float], w: Rows | None) -> float:
    """All k * k ordered pairs of a set; only those above the diagonal have an exponent."""
    present, absent = sets(labels)
    total = 0.0
    for chosen, sign in ((absent, 1), (present, -1)):
        terms = []
        for i, j in itertools.product(chosen, repeat=2):
            power = sign * (z[i] + z[j]) if i < j else 0.0
            terms.append((w[i][j] + 1e-5 if w else 1) * math.exp(power))
        total += sum(terms) / len(terms) if terms else 0.0
    return total / 2 if present and absent else total


def released_complete_by_loops(z: list[float], labels: list[float], w: Rows | None) -> float:
    present, absent = sets(labels)
    inner = released_intra_by_loops(z, labels, w)
    return (inter_by_loops(z, labels, w) + inner) / 2 if present and absent else inner


def complete_by_loops(z: list[float], labels: list[float], w: Rows | None) -> float:
    present, absent = sets(labels)
    inner = intra_by_loops(z, labels, w)
    return (inter_by_loops(z, labels, w) + inner) / 2 if present and absent else inner


@pytest.mark.parametrize(
    ("loss", "loops"),
    [
        (losses.inter, inter_by_loops),
        (losses.intra, intra_by_loops),
        (losses.complete, complete_by_loops),
        (losses.released_intra, released_intra_by_loops),
        (losses.released_complete, released_complete_by_loops),
    ],
)
@pytest.mark.parametrize("affinity", [AFFINITY, None])
def test_pair_losses_are_the_double_loops(
    loss: Callable[..., torch.Tensor],
    loops: Callable[..., float],
    affinity: torch.Tensor | None,
) -> None:
    weights = None if affinity is None else affinity.tolist()
    theirs = [loops(z, y, weights) for z, y in zip(LOGITS.tolist(), PATTERNS.tolist(), strict=True)]
    ours = loss(LOGITS, PATTERNS, affinity)
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-5, atol=1e-5)
    assert (ours > 0).any()


def test_numbers_by_hand() -> None:
    z = torch.tensor([[0.0, math.log(2), -math.log(3)]])  # sigmoid: 1/2, 2/3, 1/4
    y = torch.tensor([[1.0, 0.0, 0.0]])
    inter = (math.exp(1 / 6) + math.exp(-1 / 4)) / 2
    intra = (2 / 3 + 0) / 2  # exp(log 2 - log 3); one label in P makes no pair
    torch.testing.assert_close(losses.inter(z, y), torch.tensor([inter]))
    torch.testing.assert_close(losses.intra(z, y), torch.tensor([intra]))
    torch.testing.assert_close(losses.complete(z, y), torch.tensor([(inter + intra) / 2]))
    torch.testing.assert_close(losses.intra(z, 1 - y), torch.tensor([1.5 / 2]))
    bce = (math.log(2) + math.log(3) + math.log(4 / 3)) / 3
    torch.testing.assert_close(losses.binary_cross_entropy(z, y), torch.tensor([bce]))


def test_the_released_form_by_hand() -> None:
    """k = 10 absent, 2 present: gradients are 9 / 20 and 1 / 4 of those of the mean over pairs."""
    z = torch.linspace(-1, 1, 12)[None].requires_grad_()
    y = torch.zeros(1, 12)
    y[0, [2, 7]] = 1
    ours, theirs = (
        torch.autograd.grad(loss(z, y).sum(), z)[0]
        for loss in (losses.intra, losses.released_intra)
    )
    torch.testing.assert_close(theirs[y == 0], 9 / 20 * ours[y == 0])
    torch.testing.assert_close(theirs[y == 1], 1 / 4 * ours[y == 1])
    zero, alone = torch.zeros(1, 3), torch.tensor([[1.0, 0.0, 0.0]])
    # All logits 0: each of the pairs has exp(0), whichever form; one label alone costs 1, too.
    assert losses.released_intra(zero, alone).tolist() == [1.0]
    assert losses.intra(zero, alone).tolist() == [0.5]
    affinity = torch.full((3, 3), 0.5)
    torch.testing.assert_close(
        losses.released_intra(zero, alone, affinity), torch.tensor([0.50001]), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize(
    "loss",
    [
        losses.inter,
        losses.intra,
        losses.released_intra,
        losses.complete,
        losses.binary_cross_entropy,
    ],
)
def test_rows_without_labels_and_huge_logits_stay_finite(
    loss: Callable[..., torch.Tensor],
) -> None:
    z = torch.tensor([[90.0, 90.0, -90.0, -90.0], [1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    y = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, torch.nan, 0.0, 1.0]])
    values = loss(z, y)
    values.sum().backward()
    assert values.isfinite().all() and values[1] == 0
    assert z.grad is not None and z.grad.isfinite().all() and not z.grad[1].any()


def test_label_correlation_is_pearsons() -> None:
    labels = (torch.rand(50, 4, generator=torch.Generator().manual_seed(3)) > 0.6).float()
    ours = losses.label_correlation(torch.cat((labels, torch.full((2, 4), torch.nan))))
    theirs = np.corrcoef(labels.double().numpy(), rowvar=False)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)
    by_hand = losses.label_correlation(torch.tensor([[1.0, 1, 0], [0, 1, 1], [1, 0, 0], [1, 1, 0]]))
    # Columns 0 and 1: means 3/4; covariance 2/4 - 9/16 = -1/16; variances 3/16 each.
    torch.testing.assert_close(by_hand[0, 1], torch.tensor(-1 / 3))
    torch.testing.assert_close(by_hand[0, 2], torch.tensor(-1.0))
    constant = losses.label_correlation(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert torch.equal(constant, torch.eye(2))


def test_the_global_loss_is_the_double_loop() -> None:
    generator = torch.Generator().manual_seed(4)
    embeddings = torch.randn(3, 4, 6, generator=generator)
    rho = losses.label_correlation((torch.rand(20, 4, generator=generator) > 0.5).float())
    expected = []
    for item in embeddings.double().tolist():
        errors = []
        for i, j in itertools.combinations(range(4), 2):
            dot = sum(a * b for a, b in zip(item[i], item[j], strict=True))
            norms = math.hypot(*item[i]) * math.hypot(*item[j])
            errors.append((dot / norms - float(rho[i, j])) ** 2)
        expected.append(sum(errors) / len(errors))
    ours = losses.embedding_correlation(embeddings, rho)
    torch.testing.assert_close(ours, torch.tensor(expected))
    released = losses.released_embedding_correlation(embeddings, rho)
    torch.testing.assert_close(released, ours * 6 / 16, rtol=1e-3, atol=1e-4)  # rho + 1e-5
    by_numpy = np.triu(
        np.square(np.stack([np.inner(x, x) for x in _unit(embeddings)]) - rho.numpy() - 1e-5), 1
    )
    np.testing.assert_allclose(released.numpy(), by_numpy.mean((1, 2)), rtol=1e-5)
    one = losses.embedding_correlation(embeddings[:, :1], rho[:1, :1])
    assert one.tolist() == [0, 0, 0]


def _unit(embeddings: torch.Tensor) -> np.ndarray:
    x = embeddings.numpy()
    unit: np.ndarray = x / np.linalg.norm(x, axis=-1, keepdims=True)
    return unit


def test_losses_follow_a_renaming_of_the_labels() -> None:
    order = torch.tensor([3, 0, 4, 1, 2])
    moved = AFFINITY[order][:, order]
    for loss in (losses.inter, losses.intra, losses.complete):
        torch.testing.assert_close(
            loss(LOGITS[:, order], PATTERNS[:, order], moved), loss(LOGITS, PATTERNS, AFFINITY)
        )
