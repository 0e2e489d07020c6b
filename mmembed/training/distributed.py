"""One process or many: started by torchrun, or alone."""

from __future__ import annotations

import ctypes
import datetime
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = datetime.timedelta(minutes=10)  # a lost process ends the others; nothing hangs for ever


@dataclass(frozen=True)
class World:
    """One process among its equals."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, on each of them."""
        if self.size > 1:
            values = values.to(self.device)
            dist.all_reduce(values)
        return values.cpu()

    def gather(self, value: object) -> list[object]:
        """Every process's value, in the order of ranks, on each of them."""
        if self.size == 1:
            return [value]
        values: list[object] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


def follow_parent() -> None:
    """Be asked to stop when the process that started this one is gone, even killed (Linux)."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)


def local_device() -> torch.device:
    """Where this process computes: on the GPU numbered LOCAL_RANK, else on the CPU.

    On CPUs each process computes with one thread unless OMP_NUM_THREADS says otherwise: a loop over
    short sequences gains nothing from a second one.
    """
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        return device
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return torch.device("cpu")


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def join_world() -> Iterator[World]:
    """Join the processes that torchrun started, or be one alone.

    gloo on CPUs, NCCL with one GPU a process; see `local_device`.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    rank = int(os.environ.get("RANK", "0"))
    device = local_device()
    if size == 1:
        yield World(0, 1, device)
        return
    follow_parent()  # torchrun
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()
