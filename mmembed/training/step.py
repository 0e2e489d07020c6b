"""The one training step: sum locally, count globally, divide once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmembed.batch import Batch
from mmembed.contract import Method
from mmembed.training.distributed import World


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        losses: term -> mean over the labelled items of the global batch.
        loss: their weighted sum.
        gradient_norm: before clipping.
        applied: False when something was not finite and the weights were left alone.
    """

    losses: dict[str, float]
    loss: float
    gradient_norm: float
    applied: bool


def accumulate_gradients(
    model: nn.Module, micro_batches: Sequence[Batch], world: World
) -> dict[str, float]:
    """Add the gradient of the global mean loss to every parameter; returns the mean of each term.

    Label counts are summed over micro-batches and processes first, so that the gradient does not
    depend on how the global batch was cut. Every parameter takes part (with a factor of zero where
    no item of this process needs it): all of them have a gradient under DDP's default settings.
    """
    method = _method(model)
    distributed = isinstance(model, DistributedDataParallel)
    names = [name for name in method.terms if method.weights[name] > 0]
    counts = world.total(
        torch.tensor(
            [sum(b.count(method.terms[name]) for b in micro_batches) for name in names],
            dtype=torch.float64,
        )
    )
    divisor = dict(zip(names, counts.clamp(min=1).tolist(), strict=True))
    sums = dict.fromkeys(names, 0.0)
    for place, batch in enumerate(micro_batches):
        last = place == len(micro_batches) - 1
        waits = isinstance(model, DistributedDataParallel) and not last
        with cast(DistributedDataParallel, model).no_sync() if waits else nullcontext():
            terms = model(batch.to(world.device))
            loss: Tensor = _Touch.apply(*model.parameters())  # type: ignore[no-untyped-call]
            for name in names:
                if name in terms:
                    # DDP averages over processes; the sum is what is wanted.
                    weight = method.weights[name] * (world.size if distributed else 1)
                    loss = loss + weight * terms[name] / divisor[name]
                    sums[name] += float(terms[name].detach())
            torch.autograd.backward(loss)
    totals = world.total(torch.tensor([sums[name] for name in names], dtype=torch.float64))
    return {name: total / divisor[name] for name, total in zip(names, totals.tolist(), strict=True)}


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    *,
    rate: float,
    clip: float,
    world: World,
) -> StepResult:
    """One optimiser step over a global batch, of which `micro_batches` is this process's part."""
    method = _method(model)
    losses = accumulate_gradients(model, micro_batches, world)
    loss = sum(method.weights[name] * value for name, value in losses.items())
    norm = float(nn.utils.clip_grad_norm_(model.parameters(), clip))
    applied = bool(torch.isfinite(torch.tensor([loss, norm])).all())
    if applied:
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    method.after_step(applied, world.gather)
    return StepResult(losses, loss, norm, applied)


class _Touch(torch.autograd.Function):
    """0, as a function of all parameters, whose gradient is 0 for each: costs no arithmetic."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.shapes = [parameter.shape for parameter in parameters]
        return parameters[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        zero = torch.zeros_like(gradients[0])
        return tuple(zero.expand(shape) for shape in ctx.shapes)


def _method(model: nn.Module) -> Method:
    inner = model.module if isinstance(model, DistributedDataParallel) else model
    assert isinstance(inner, Method)
    return inner
