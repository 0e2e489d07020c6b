"""Pooling by hand."""

from __future__ import annotations

import torch

from mmembed.batch import Packed
from mmembed.nn.pooling import LayerWeights, mean_and_std


def test_mean_and_std_by_hand() -> None:
    x = Packed(torch.tensor([[1.0], [3.0], [5.0], [2.0]]), torch.tensor([3, 0, 1]))
    pooled = mean_and_std(x)
    expected = torch.tensor([[3.0, (8 / 3) ** 0.5], [0.0, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(pooled, expected, rtol=0, atol=5e-3)
    torch.testing.assert_close(mean_and_std(x.pad()), pooled)


def test_gradient_is_finite_where_nothing_varies() -> None:
    values = torch.ones(4, 2, requires_grad=True)
    mean_and_std(Packed(values, torch.tensor([4]))).sum().backward()
    assert values.grad is not None and values.grad.isfinite().all()


def test_layer_weights_start_equal() -> None:
    layers = torch.tensor([[[1.0], [2.0], [6.0]]])
    torch.testing.assert_close(LayerWeights(3)(layers), torch.tensor([[3.0]]))
