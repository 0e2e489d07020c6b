"""AdamW with warm-up and cosine decay, the schedule a function of the share of training done."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """Settings of the optimiser.

    Attributes:
        lr: peak learning rate.
        warmup: share of training during which the rate rises from 0.
        weight_decay: of matrices; vectors (biases, norms, absent streams) are not decayed.
        clip: largest norm of the whole gradient.
    """

    lr: float = 1e-3
    warmup: float = 0.1
    weight_decay: float = 0.01
    clip: float = 1.0


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all parameters of `module`."""
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)


def learning_rate(config: OptimConfig, done: float) -> float:
    """The rate when a share `done` in [0, 1] of training lies behind."""
    if done < config.warmup:
        return config.lr * done / config.warmup
    rest = (done - config.warmup) / (1 - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, rest)))
