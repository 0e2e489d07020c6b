"""Adam and AdamW with a warm-up, the schedule a function of the fraction of training done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
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


class Adam(torch.optim.Adam):
    """torch's own, the same to the bit, and sooner ready."""

    add_param_group = _plain("add_param_group")
    load_state_dict = _plain("load_state_dict")
    state_dict = _plain("state_dict")
    step = torch.no_grad()(_plain("step"))
    zero_grad = _plain("zero_grad")


@dataclass(frozen=True)
class OwnRate:
    """Parameters with a rate of their own.

    Attributes:
        parameters: those of them that are trained.
        lr: peak learning rate.
        weight_decay: of all of them.
    """

    parameters: Sequence[nn.Parameter]
    lr: float
    weight_decay: float


def build_optimizer(module: nn.Module, config: OptimConfig, own: Sequence[OwnRate] = ()) -> Adam:
    """Adam or AdamW over all parameters of `module` that are trained.

    Each group has "scale": its learning rate in units of that of the step.

    Args:
        module: which is trained.
        config: rates and decay of all that is not in `own`.
        own: parameters of `module`, each at most once.
    """
    backbones = [part.backbone for part in module.modules() if isinstance(part, PretrainedFrontend)]
    pretrained = {id(parameter) for part in backbones for parameter in part.parameters()}
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in one.parameters if p.requires_grad],
            "weight_decay": one.weight_decay,
            "scale": one.lr / config.lr,
        }
        for one in own
    ]
    taken = {id(parameter) for one in own for parameter in one.parameters}
    trained = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
    spared = 0.0 if config.kind == "adamw" else config.weight_decay
    for scale, held in ((1.0, False), (config.backbone_lr / config.lr, True)):
        some = [p for p in trained if (id(p) in pretrained) is held]
        for matrices, decay in ((True, config.weight_decay), (False, spared)):
            chosen = [p for p in some if (p.ndim > 1) is matrices]
            groups.append({"params": chosen, "weight_decay": decay, "scale": scale})
    return Adam(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=(0.9, config.beta2),
        fused=True,
        decoupled_weight_decay=config.kind == "adamw",
    )


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
    rest = min(1.0, max(0.0, rest))
    if config.schedule == "constant":
        return config.lr
    return config.lr * (1 - rest if config.schedule == "linear" else _cosine(rest))


def _cosine(rest: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * rest))
