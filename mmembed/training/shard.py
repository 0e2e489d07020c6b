"""Weights, gradients and the optimiser's state divided among processes (FSDP2 of torch).

Between steps each process holds its part of every tensor. A step begins by gathering all weights
and ends by summing each part's gradient where the part is; so it computes what DDP computes, and
the peak of a process of N is the weights and gradients once, and an N-th of the rest. The whole
method is one unit: which blocks a process runs depends on the streams of its items, and units of
blocks would wait for processes that skip them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from mmembed.training.distributed import World
from mmembed.training.optim import Adam

M = TypeVar("M", bound=nn.Module)


class Sharded(Generic[M]):
    """A method that is trained in parts, and a whole one for what no part can do.

    Args:
        method: as all processes have it, on the CPU; from now on this process's part, on its
            device.
        optimizer: of the whole method, with its state.
        world: all processes.

    Attributes:
        optimizer: of the parts.
    """

    def __init__(self, method: M, optimizer: Adam, world: World) -> None:
        # Imported here: two thirds of a second, for what few runs need.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import distribute_tensor

        self._method, self._device, self._whole = method, world.device, copy.deepcopy(method)
        names = {id(parameter): name for name, parameter in method.named_parameters()}
        for parameter in method.parameters():  # convolutions have their channels last
            parameter.data = parameter.data.contiguous()
        mesh = init_device_mesh(world.device.type, (world.size,))
        fully_shard(method, mesh=mesh, reshard_after_forward=False)
        parts = dict(method.named_parameters())
        self.optimizer = Adam(
            [
                {**group, "params": [parts[names[id(old)]] for old in group["params"]]}
                for group in optimizer.param_groups
            ]
        )
        for old, slots in optimizer.state.items():
            part: Any = parts[names[id(old)]]
            self.optimizer.state[part] = {
                name: distribute_tensor(
                    value.to(world.device).contiguous(),
                    part.device_mesh,
                    part.placements,
                    src_data_rank=None,
                )
                if value.ndim
                else value
                for name, value in slots.items()
            }

    @contextmanager
    def whole(self) -> Iterator[M]:
        """The whole method with the weights of now, on the device; for all processes together."""
        self._whole.load_state_dict(gathered(self._method.state_dict()))
        try:
            yield self._whole.to(self._device)
        finally:
            self._whole.to("cpu")


def gathered(value: Any) -> Any:
    """A state with all parts of its tensors, on the CPU where it was divided; what is whole stays.

    Of a method in parts all processes have to ask together.
    """
    if isinstance(value, dict):
        return {name: gathered(part) for name, part in value.items()}
    if isinstance(value, list):
        return [gathered(part) for part in value]
    if isinstance(value, torch.Tensor) and hasattr(value, "full_tensor"):
        return value.full_tensor().cpu()
    return value


def is_sharded(model: nn.Module) -> bool:
    """Whether `Sharded` has divided it."""
    return hasattr(model, "set_requires_gradient_sync")
