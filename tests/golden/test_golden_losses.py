"""The losses of the first steps, frozen: a tidied tree must train as before.

After a change that is meant to alter training, run this file as a program to write the new values.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.support import random_item, small_method

from mmembed.data.item import augment, collate
from mmembed.settings.optim import OptimConfig
from mmembed.settings.pretrain import Augmentation
from mmembed.streams import STREAMS, stream_subsets
from mmembed.training.distributed import World
from mmembed.training.optim import build_optimizer
from mmembed.training.step import train_step

GOLDEN = Path(__file__).parent / "losses.json"
STEPS = 5


def losses(speaker_loss: str) -> list[dict[str, float]]:
    """Terms of the first steps of the small method, augmentation included."""
    method = small_method(speaker_loss=speaker_loss)
    optimizer = build_optimizer(method, OptimConfig())
    items = [random_item(s, n) for n, s in enumerate([*stream_subsets(), STREAMS])]
    generator = torch.Generator().manual_seed(0)
    world = World(0, 1, torch.device("cpu"))
    found = []
    for _ in range(STEPS):
        batch = collate([augment(item, Augmentation(), generator) for item in items])
        step = train_step(method, optimizer, [batch], rate=1e-2, clip=1.0, world=world)
        found.append({name: round(value, 5) for name, value in step.losses.items()})
    return found


@pytest.mark.parametrize("speaker_loss", ["softmax", "margin"])
def test_first_steps_are_as_they_were(speaker_loss: str) -> None:
    """To 1e-3: processors round matrix products differently."""
    golden = json.loads(GOLDEN.read_text())[speaker_loss]
    for found, expected in zip(losses(speaker_loss), golden, strict=True):
        assert found == pytest.approx(expected, rel=1e-3)


if __name__ == "__main__":
    values = {name: losses(name) for name in ("softmax", "margin")}
    GOLDEN.write_text(json.dumps(values, indent=1) + "\n")
