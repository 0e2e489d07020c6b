"""AdamW with warm-up and cosine decay, the schedule a function of the fraction of training done."""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import nn

from mmembed.backbones.pretrained_frontend import PretrainedFrontend
from mmembed.settings.optim import OptimConfig


def _plain(name: str) -> Any:
    """A function of AdamW without its guards against being compiled: at their first call they
    import torch's compiler, two seconds for something that we never do.
    """
    return inspect.unwrap(getattr(torch.optim.AdamW, name))


class AdamW(torch.optim.AdamW):
    """torch's own, the same to the bit, and sooner ready."""

    add_param_group = _plain("add_param_group")
    load_state_dict = _plain("load_state_dict")
    state_dict = _plain("state_dict")
    step = torch.no_grad()(_plain("step"))
    zero_grad = _plain("zero_grad")


def build_optimizer(module: nn.Module, config: OptimConfig) -> AdamW:
    """AdamW over all parameters of `module` that are trained.

    Each group has "scale": its learning rate in units of that of the step.
    """
    backbones = [part.backbone for part in module.modules() if isinstance(part, PretrainedFrontend)]
    pretrained = {id(parameter) for part in backbones for parameter in part.parameters()}
    groups = []
    for scale, held in ((1.0, False), (config.backbone_lr / config.lr, True)):
        own = [p for p in module.parameters() if p.requires_grad and (id(p) in pretrained) is held]
        for matrices, decay in ((True, config.weight_decay), (False, 0.0)):
            chosen = [p for p in own if (p.ndim > 1) is matrices]
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return AdamW(groups, lr=config.lr, betas=(0.9, 0.98), fused=True)


def learning_rate(config: OptimConfig, done: float, step: float = 0.0) -> float:
    """The rate of a step.

    Args:
        config: settings.
        done: the fraction of training, in [0, 1], that lies behind before the step.
        step: the fraction of training that the step is. The warm-up counts it as done, so that the
            first step is no step of rate 0; the decay does not, so that the last one is none.
    """
    if done + step < config.warmup:
        return config.lr * (done + step) / config.warmup
    rest = (done - config.warmup) / (1 - config.warmup) if config.warmup < 1 else 0.0
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, rest))))
