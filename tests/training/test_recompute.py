"""Activations that are computed again give the same gradients, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.support import random_item, small_method
from helpers.tiny_backbones import write_tiny

from mmembed.backbones.pretrained import load_pretrained
from mmembed.data.item import collate
from mmembed.method import Method
from mmembed.streams import STREAMS
from mmembed.training.distributed import World
from mmembed.training.recompute import recompute_blocks
from mmembed.training.step import accumulate_gradients

ALONE = World(0, 1, torch.device("cpu"))


def gradients(method: Method) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)  # of dropout
    method.train().zero_grad()
    accumulate_gradients(method, [collate([random_item(STREAMS, n) for n in range(3)])], ALONE)
    return {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}


def test_gradients_are_the_same() -> None:
    method = small_method()
    for part in method.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.3
    names = [*method.state_dict()]
    expected = gradients(method)
    assert recompute_blocks(method) >= 4
    found = gradients(method)
    assert found.keys() == expected.keys() and [*method.state_dict()] == names
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert any(value.abs().sum() for value in expected.values())


@pytest.mark.parametrize("kind", ["whisper", "bert"])
def test_blocks_of_pretrained_encoders_that_are_trained(kind: str, tmp_path: Path) -> None:
    encoder = load_pretrained(str(write_tiny(tmp_path / kind, kind))).encoder
    encoder.requires_grad_(False)
    assert recompute_blocks(encoder) == 0
    encoder.blocks[-1].requires_grad_(True)
    assert recompute_blocks(encoder) == 1
