"""The schedule: no step without effect at either end."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.tiny_backbones import write_tiny

from mmembed.backbones.pretrained import load_pretrained
from mmembed.backbones.pretrained_frontend import PretrainedFrontend
from mmembed.settings.encoder import BackboneConfig
from mmembed.settings.optim import OptimConfig
from mmembed.training.optim import build_optimizer, learning_rate


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
