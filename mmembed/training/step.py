"""The one training step: sum locally, count globally, divide once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mmembed.batch import Batch
from mmembed.method import Method
from mmembed.training.distributed import World
from mmembed.training.shard import gathered, is_sharded

MAX_SKIPPED_STEPS: Final = 3  # steps in a row that were not finite, after which a run has failed


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        losses: term -> mean over the labelled items of the global batch.
        loss: their weighted sum.
        gradient_norm: before clipping.
        applied: False when something was not finite and the weights were left alone.
        requests: of all processes, how many made each request.
    """

    losses: dict[str, float]
    loss: float
    gradient_norm: float
    applied: bool
    requests: tuple[int, ...] = ()


def accumulate_gradients(
    model: nn.Module, micro_batches: Sequence[Batch], world: World, means: int = 1
) -> tuple[Tensor, Tensor]:
    """Add the gradient of the global mean loss to every parameter.

    Label counts are summed over micro-batches and processes first, so that the gradient does not
    depend on how the global batch was cut. Every parameter takes part (with a factor of zero where
    no item of this process needs it): all of them have a gradient under DDP's default settings.

    Args:
        model: a method, or what divides one among processes.
        micro_batches: this process's part.
        world: the processes.
        means: so many times the mean: what the means of so many batches of one size add up to.

    Returns:
        Of each term with a weight, on the device: (terms,) float64 sums over the items of this
        process, and (terms,) float64 labelled items of all processes.
    """
    method = _method(model)
    shared = world.size if isinstance(model, DistributedDataParallel) or is_sharded(model) else 1
    names = _weighted(method)
    labelled = [sum(b.count(method.terms[name]) for b in micro_batches) for name in names]
    counts = _total(torch.tensor(labelled, dtype=torch.float64), world)
    divisors = counts.clamp(min=1) / means
    sums = torch.zeros_like(counts)
    for index, batch in enumerate(micro_batches):
        with _summing(model, index == len(micro_batches) - 1):
            terms = model(batch.to(world.device))
            loss: Tensor = _Touch.apply(*model.parameters())  # type: ignore[no-untyped-call]
            for number, name in enumerate(names):
                if name in terms:
                    # DDP and FSDP average over processes; the sum is what is wanted.
                    weight = method.weights[name] * shared
                    loss = loss + weight * terms[name] / divisors[number].to(terms[name].dtype)
                    sums[number] += terms[name].detach()
            torch.autograd.backward(loss)
    return sums, counts


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    micro_batches: Sequence[Batch],
    *,
    rate: float,
    clip: float,
    world: World,
    requests: Callable[[], Sequence[bool]] = tuple,
    means: int = 1,
) -> StepResult:
    """One optimiser step over a global batch, of which `micro_batches` is this process's part.

    What the program wants to know of it (losses, norm, whether all is finite) comes from the
    device in one piece, and with it `requests`: what this process asks of all, as late as can be.
    A `clip` of 0 allows any norm. For `means` see `accumulate_gradients`.
    """
    method = _method(model)
    sums, counts = accumulate_gradients(model, micro_batches, world, means)
    largest = clip or math.inf
    norm = gathered(nn.utils.clip_grad_norm_(model.parameters(), largest)).to(sums.device)
    requested = torch.tensor(requests(), dtype=torch.float64).to(sums.device, non_blocking=True)
    totals = _total(torch.cat([sums, requested]), world)
    *values, gradient_norm = torch.cat([counts, totals, norm.double()[None]]).tolist()  # waits

    names = _weighted(method)
    labelled, terms, made = values[: len(names)], values[len(names) :], values[2 * len(names) :]
    losses = {
        name: total / max(1.0, count)
        for name, count, total in zip(names, labelled, terms, strict=False)
    }
    loss = sum(method.weights[name] * value for name, value in losses.items())
    applied = math.isfinite(loss) and math.isfinite(gradient_norm)
    if applied:
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    method.after_step(applied, world.gather)
    return StepResult(losses, loss, gradient_norm, applied, tuple(map(int, made)))


def _summing(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Whether gradients of this micro-batch are summed over processes: with those of the last."""
    if isinstance(model, DistributedDataParallel) and not last:
        return model.no_sync()
    if is_sharded(model):
        model.set_requires_gradient_sync(last)  # type: ignore[operator]
    return nullcontext()


def _total(values: Tensor, world: World) -> Tensor:
    """The sum over all processes, on each of them, on its device; not waited for there."""
    values = values.to(world.device, non_blocking=True)
    if world.size > 1:
        dist.all_reduce(values)
    return values


def _weighted(method: Method) -> list[str]:
    """The terms that are part of the loss."""
    return [name for name in method.terms if method.weights[name] > 0]


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
