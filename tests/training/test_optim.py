"""The schedule: no step without effect at either end."""

from __future__ import annotations

import pytest

from mmembed.training.optim import OptimConfig, learning_rate


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.25, 1.0])
def test_every_step_has_a_rate(warmup: float) -> None:
    config, steps = OptimConfig(lr=1.0, warmup=warmup), 40
    rates = [learning_rate(config, step / steps, step=1 / steps) for step in range(steps)]
    risen = round(warmup * steps)
    assert rates[:risen] == pytest.approx([(step + 1) / risen for step in range(risen)])
    assert rates[risen:] == sorted(rates[risen:], reverse=True)
    assert max(rates) == pytest.approx(1.0) and min(rates) > 0
