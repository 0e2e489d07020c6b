"""Two real processes that hold a part of the weights each: they train as two that hold all."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_processes import run_two

TRAIN = """
import copy, sys, torch
from pathlib import Path
from torch.nn.parallel import DistributedDataParallel
from helpers.support import random_item, small_method
from mmembed.data.item import collate
from mmembed.settings.optim import OptimConfig
from mmembed.streams import stream_subsets
from mmembed.training.checkpoint import Position, TrainingState, load_latest, save_checkpoint
from mmembed.training.distributed import join_world
from mmembed.training.optim import build_optimizer
from mmembed.training.shard import Sharded, is_sharded
from mmembed.training.step import train_step

ITEMS = [random_item(subset, seed) for seed, subset in enumerate(stream_subsets() * 2)]
PARTS = {0: [ITEMS[:2], ITEMS[2:5]], 1: [ITEMS[5:6], ITEMS[6:]]}  # streams of one differ from both

def close(one, other):
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-6, msg=name)

with join_world() as world:
    batches = [collate(items) for items in PARTS[world.rank]]
    torch.manual_seed(0)
    method = small_method()
    for name, parameter in method.named_parameters():
        if name.startswith("encoder.frontends.video"):  # as of a frozen pretrained encoder
            parameter.requires_grad_(False)
    optimizer = build_optimizer(method, OptimConfig())
    other = copy.deepcopy(method)
    model = DistributedDataParallel(method)
    sharded = Sharded(other, build_optimizer(other, OptimConfig()), world)
    assert is_sharded(other) and not is_sharded(model)

    def step(model, optimizer, dropout):
        torch.manual_seed(10 * dropout + world.rank)
        return train_step(model, optimizer, batches, rate=1e-3, clip=1.0, world=world)

    for number in range(2):
        one, two = step(model, optimizer, number), step(other, sharded.optimizer, number)
        assert one.applied and two.applied
        close({k: torch.tensor(v) for k, v in one.losses.items()},
              {k: torch.tensor(v) for k, v in two.losses.items()})
        assert abs(one.gradient_norm / two.gradient_norm - 1) < 1e-4
    held = sum(p.to_local().numel() for p in other.parameters())
    assert 0.4 < held / sum(p.numel() for p in method.parameters()) < 0.6
    slots = sharded.optimizer.state_dict()["state"].values()
    assert all(s["exp_avg"].to_local().numel() <= s["exp_avg"].numel() for s in slots)

    folder, state = Path(sys.argv[1]), TrainingState.of(other, sharded.optimizer)
    close(state.weights, method.state_dict())
    if world.is_main:
        save_checkpoint(folder, state, Position(0, 2, 2), world)
    world.wait()

    with sharded.whole() as whole:
        close(whole.state_dict(), method.state_dict())
        found = whole.predict(batches[world.rank])  # as many batches as a process likes
    assert not is_sharded(whole)

    # A run goes on in parts, and without parts, from what was written in parts.
    again = small_method()
    again.load_state_dict(method.state_dict())
    for name, parameter in again.named_parameters():
        parameter.requires_grad_(not name.startswith("encoder.frontends.video"))
    whole_optimizer = build_optimizer(again, OptimConfig())
    assert load_latest(folder, again, whole_optimizer, world) == Position(0, 2, 2)
    parts = copy.deepcopy(again)
    optimizer_of_parts = build_optimizer(parts, OptimConfig())
    load_latest(folder, parts, optimizer_of_parts, world)
    parts_again = Sharded(parts, optimizer_of_parts, world)
    one = step(DistributedDataParallel(again), whole_optimizer, 7)
    two = step(parts, parts_again.optimizer, 7)
    three = step(other, sharded.optimizer, 7)
    assert abs(one.gradient_norm / two.gradient_norm - 1) < 1e-4
    assert three.losses == two.losses and three.gradient_norm == two.gradient_norm
    close(TrainingState.of(parts, parts_again.optimizer).weights, again.state_dict())
"""


@pytest.mark.slow
def test_parts_train_as_the_whole(tmp_path: Path) -> None:
    for code, said in run_two(TRAIN, str(tmp_path)):
        assert code == 0, said
