"""Packed attention against PyTorch's own multi-head attention and by hand; pooling by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmembed.batch import Packed
from mmembed.nn.transformer import (
    Attention,
    LayerWeights,
    kernel_attention,
    mean_and_std,
    packed_attention,
    rotate,
)


def test_by_hand() -> None:
    """Two items; one key gives its value back, equal scores give the mean of the values."""
    query = torch.ones(3, 1, 2)
    key = torch.zeros(3, 1, 2)
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]])[:, None]
    attended = packed_attention(query, key, value, torch.tensor([1, 2]), torch.tensor([1, 2]))
    expected = torch.tensor([[1.0, 2.0], [4.0, 6.0], [4.0, 6.0]])[:, None]
    torch.testing.assert_close(attended, expected)


def test_scale_and_dropout_by_hand() -> None:
    """With scale 0 all keys count the same; a share of the weights is dropped, the rest doubled."""
    torch.manual_seed(0)
    query, key, lengths = torch.randn(4, 1, 2), torch.randn(4, 1, 2), torch.tensor([2, 2])
    value = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0], [7.0, 8.0]])[:, None]
    attended = packed_attention(query, key, value, lengths, lengths, scale=0.0)
    expected = torch.tensor([[2.0, 3.0], [2.0, 3.0], [6.0, 8.0], [6.0, 8.0]])[:, None]
    torch.testing.assert_close(attended, expected)
    ones, lengths = torch.ones(1000, 1, 2), torch.tensor([1000])
    drawn = packed_attention(ones, ones, ones, lengths, lengths, dropout=0.5)
    assert drawn.std() > 0 and abs(float(drawn.mean()) - 1) < 0.02  # 500,000 weights are kept


def test_equals_masked_attention_of_torch() -> None:
    """Same weights, positions all zero: nn.MultiheadAttention with a padding mask agrees."""
    torch.manual_seed(0)
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key_value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.query.bias, ours.key_value.bias)))
        theirs.out_proj.weight.copy_(ours.out.weight)
        theirs.out_proj.bias.copy_(ours.out.bias)
    x = Packed(torch.randn(9, 16), torch.tensor([4, 2, 3]))
    source = Packed(torch.randn(11, 16), torch.tensor([1, 6, 4]))
    found = ours(x, source, torch.zeros(9), torch.zeros(11))
    padded, keys = x.pad(), source.pad()
    expected, _ = theirs(padded.values, keys.values, keys.values, key_padding_mask=~keys.mask)
    torch.testing.assert_close(found, expected[padded.mask], rtol=1e-5, atol=1e-5)
    found = ours(padded, keys, torch.zeros(3, 4), torch.zeros(3, 6))
    torch.testing.assert_close(found[padded.mask], expected[padded.mask], rtol=1e-5, atol=1e-5)


def test_rotation_depends_on_differences_of_positions_alone() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(1, 2, 8), torch.randn(1, 2, 8)

    def score(a: float, b: float) -> torch.Tensor:
        left, right = rotate(query, torch.tensor([a])), rotate(key, torch.tensor([b]))
        return (left * right).sum(-1)

    torch.testing.assert_close(score(3.0, 5.5), score(103.0, 105.5), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(3.0, 5.5), score(3.0, 6.5))
    torch.testing.assert_close(rotate(query, torch.zeros(1)), query)


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


@pytest.mark.parametrize("size", [4, 8, 36])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_heads_of_any_width_go_through_a_kernel_of_multiples_of_eight(
    size: int, scale: float | None
) -> None:
    def kernel(
        query: Tensor, key: Tensor, value: Tensor, ends: Tensor, key_ends: Tensor,
        longest: int, longest_key: int, *, scale: float | None,
    ) -> Tensor:  # fmt: skip
        """As varlen_attn takes them."""
        assert query.shape[-1] % 8 == 0 and ends.dtype == key_ends.dtype == torch.int32
        lengths, key_lengths = ends.diff().long(), key_ends.diff().long()
        assert (longest, longest_key) == (int(lengths.max()), int(key_lengths.max()))
        return packed_attention(query, key, value, lengths, key_lengths, scale=scale)

    generator = torch.Generator().manual_seed(0)
    lengths, key_lengths = torch.tensor([3, 1, 5]), torch.tensor([2, 7, 4])
    query = torch.randn(9, 2, size, generator=generator)
    key, value = torch.randn(2, 13, 2, size, generator=generator)
    expected = packed_attention(query, key, value, lengths, key_lengths, scale=scale)
    found = kernel_attention(kernel, query, key, value, lengths, key_lengths, scale=scale)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
