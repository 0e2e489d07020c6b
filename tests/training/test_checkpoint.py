"""Checkpoints come back whole, or the one before does."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from mmembed.training.checkpoint import Position, load_latest, save_checkpoint
from mmembed.training.optim import OptimConfig, build_optimizer


def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    module = nn.Linear(3, 2)
    optimizer = build_optimizer(module, OptimConfig())
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    return module, optimizer


def test_round_trip(tmp_path: Path) -> None:
    module, optimizer = make(0)
    save_checkpoint(tmp_path, module, optimizer, Position(2, 5, 40))
    other, other_optimizer = make(1)
    assert load_latest(tmp_path, other, other_optimizer) == Position(2, 5, 40)
    assert torch.equal(other.weight, module.weight)
    ours, theirs = optimizer.state_dict(), other_optimizer.state_dict()
    assert torch.equal(ours["state"][0]["exp_avg"], theirs["state"][0]["exp_avg"])
    assert list(tmp_path.glob(".*")) == []


def test_two_are_kept(tmp_path: Path) -> None:
    module, optimizer = make(0)
    for total in (1, 2, 3):
        save_checkpoint(tmp_path, module, optimizer, Position(0, total, total))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize("name", ["method.safetensors", "trainer.pt", "checksums.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_one_is_named_and_passed_over(
    tmp_path: Path, name: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    module, optimizer = make(0)
    save_checkpoint(tmp_path, module, optimizer, Position(0, 1, 1))
    newest = save_checkpoint(tmp_path, module, optimizer, Position(0, 2, 2))
    data = bytearray((newest / name).read_bytes())
    if damage == "remove":
        (newest / name).unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        (newest / name).write_bytes(data[: len(data) // 2] if damage == "cut" else data)
    other, other_optimizer = make(1)
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path, other, other_optimizer) == Position(0, 1, 1)
    assert "step-00000002" in caplog.text


def test_nothing_to_load(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none", *make(0)) is None
