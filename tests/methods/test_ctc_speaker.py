"""What the settings of CTC and speakers say of the gradients that reach the encoder."""

from __future__ import annotations

import pytest
import torch
from helpers.support import random_item, small_method
from torch import Tensor

from mmembed.data.item import collate
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.streams import stream_subsets

BATCH = collate([random_item(subset, seed) for seed, subset in enumerate(stream_subsets())])


def gradients(factor: float) -> tuple[float, dict[str, Tensor]]:
    """The speaker loss and its gradient for each weight that it reaches."""
    torch.manual_seed(0)
    method: CtcSpeaker = small_method(speaker_gradient=factor).eval()
    loss = method(BATCH)["speaker"]
    loss.backward()
    found = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return loss.item(), found


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.25])
def test_the_speaker_gradient_is_scaled_in_the_encoder_alone(factor: float) -> None:
    plain_loss, plain = gradients(1.0)
    loss, scaled = gradients(factor)
    assert loss == plain_loss and plain.keys() == scaled.keys()
    encoder = [name for name in plain if name.startswith("encoder.")]
    assert any(plain[name].abs().max() > 1e-3 for name in encoder)
    for name, value in plain.items():
        expected = factor * value if name in encoder else value
        torch.testing.assert_close(scaled[name], expected, rtol=1e-4, atol=1e-6, msg=name)
