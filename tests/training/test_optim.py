"""The schedule: no step without effect at either end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_backbones import write_tiny

from mmembed.backbones.pretrained import load_pretrained
from mmembed.backbones.pretrained_frontend import PretrainedFrontend
from mmembed.settings.encoder import BackboneConfig
from mmembed.settings.optim import OptimConfig
from mmembed.training.optim import OwnRate, build_optimizer, learning_rate


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 1.0])
def test_every_step_has_a_rate(warmup: float) -> None:
    config, steps = OptimConfig(lr=1.0, warmup=warmup), 40
    rates = [learning_rate(config, step / steps, step=1 / steps) for step in range(steps)]
    risen = round(warmup * steps)
    assert rates[:risen] == pytest.approx([(step + 1) / risen for step in range(risen)])
    assert rates[risen:] == sorted(rates[risen:], reverse=True)
    assert max(rates) == pytest.approx(1.0) and min(rates) > 0


def test_a_pretrained_front_end_has_a_rate_of_its_own(tmp_path: Path) -> None:
    """And a text encoder that a study trains has not: it is the model itself."""
    backbone = load_pretrained(str(write_tiny(tmp_path, "bert"))).encoder
    config = OptimConfig(lr=1e-3, backbone_lr=1e-4)
    assert {group["scale"] for group in build_optimizer(backbone, config).param_groups} == {1.0}
    frontend = PretrainedFrontend(backbone, BackboneConfig("made", tuned="top", top=1), 4)
    scales = {
        id(parameter): group["scale"]
        for group in build_optimizer(frontend, config).param_groups
        for parameter in group["params"]
    }
    block = frontend.backbone.blocks[-1]
    assert all(scales[id(p)] == pytest.approx(0.1) for p in block.parameters())
    assert all(scales[id(p)] == 1.0 for p in (*frontend.project.parameters(),))
    assert len(scales) == len([p for p in frontend.parameters() if p.requires_grad])


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_both_kinds_are_torchs(kind: str) -> None:
    """Adam decays all by L2; AdamW matrices alone, by taking it off the weights."""
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    config = OptimConfig(lr=0.1, weight_decay=0.5, kind=kind, beta2=0.999)  # type: ignore[arg-type]
    mine = build_optimizer(ours, config)
    reference: torch.optim.Optimizer
    if kind == "adam":
        reference = torch.optim.Adam(theirs.parameters(), lr=0.1, weight_decay=0.5)
    else:
        groups = [
            {"params": [theirs.weight], "weight_decay": 0.5},
            {"params": [theirs.bias], "weight_decay": 0.0},
        ]
        reference = torch.optim.AdamW(groups, lr=0.1)
    x = torch.randn(5, 3)
    for _ in range(5):
        for module, optimizer in ((ours, mine), (theirs, reference)):
            module(x).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)


def test_parts_have_rates_of_their_own() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    own = OwnRate(list(module[0].parameters()), 5e-3, 0.25)
    made = build_optimizer(module, OptimConfig(lr=1e-3, weight_decay=0.1, kind="adam"), [own])
    found = {
        id(parameter): (group["scale"], group["weight_decay"])
        for group in made.param_groups
        for parameter in group["params"]
    }
    assert all(found[id(p)] == pytest.approx((5.0, 0.25)) for p in module[0].parameters())
    assert all(found[id(p)] == pytest.approx((1.0, 0.1)) for p in module[1].parameters())


def test_schedules_by_hand() -> None:
    def rates(schedule: str) -> list[float]:
        config = OptimConfig(lr=2.0, warmup=0.2, schedule=schedule)  # type: ignore[arg-type]
        return [learning_rate(config, done) for done in (0.0, 0.1, 0.2, 0.6, 1.0)]

    assert rates("constant") == pytest.approx([0, 1, 2, 2, 2])
    assert rates("linear") == pytest.approx([0, 1, 2, 1, 0])
    assert rates("cosine") == pytest.approx([0, 1, 2, 1, 0])
    quarter = [OptimConfig(lr=2.0, warmup=0.0, schedule=s) for s in ("linear", "cosine")]  # type: ignore[arg-type]
    assert [learning_rate(c, 0.25) for c in quarter] == pytest.approx([1.5, 1 + 0.5**0.5])
