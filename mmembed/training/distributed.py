"""One process or many: started by torchrun, or alone."""

from __future__ import annotations

import ctypes
import datetime
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from mmembed.config import Precision
from mmembed.training.heartbeat import Heartbeat

log = logging.getLogger(__name__)

TIMEOUT = datetime.timedelta(minutes=10)  # after it a lost process ends the others

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """One process among all that train together.

    `gather`, `collect`, `broadcast` and `wait` may be called by processes that are far apart in
    time: they wait as long as the others are alive.
    """

    rank: int
    size: int
    device: torch.device
    heartbeat: Heartbeat | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def gather(self, value: object) -> list[object]:
        """Every process's value, in the order of ranks, on each of them."""
        if self.size == 1:
            return [value]
        values: list[object] = [None] * self.size
        self._meet()
        dist.all_gather_object(values, value)
        return values

    def collect(self, value: Value) -> list[Value]:
        """Every process's value, in the order of ranks, on the main process; [] on the others."""
        if self.size == 1:
            return [value]
        values: list[Value] = [value] * self.size
        self._meet()
        dist.gather_object(value, values if self.is_main else None)
        return values if self.is_main else []

    def broadcast(self, value: Value) -> Value:
        """The main process's value, on each process."""
        if self.size == 1:
            return value
        values = [value]
        self._meet()
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            self._meet()
            dist.barrier()

    def _meet(self) -> None:
        if self.heartbeat:
            self.heartbeat.meet()


ALONE = World(0, 1, torch.device("cpu"))


def follow_parent() -> None:
    """Get SIGTERM when the process that started this one is gone, even killed (Linux)."""
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
    threads = (os.environ.get("OMP_NUM_THREADS") or "1").partition(",")[0]  # "4,2": by nesting
    torch.set_num_threads(int(threads))
    return torch.device("cpu")


def check_precision(precision: Precision, device: torch.device) -> None:
    """Warn where products in bf16 are slower than those in fp32: on x86 without an instruction for
    them, some 15 times.
    """
    if precision != "bf16" or device.type != "cpu":
        return
    can = torch.cpu.get_capabilities()
    if can.get("architecture") == "x86_64" and not (can["avx512_bf16"] or can["amx_bf16"]):
        log.warning("this processor has no products in bf16: fp32 is faster, and more precise")


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def decoding_processes(device: torch.device) -> int:
    """How many processes should decode for a frozen encoder on this device.

    On a GPU the encoder takes one processor; the others decode. On CPUs both need all of them, and
    whichever has no work gives way to the other. Processes of torchrun share the machine.
    """
    processors = cpu_count() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, processors - (device.type == "cuda"))


@contextmanager
def join_world() -> Iterator[World]:
    """Join the processes that torchrun started, or be one alone.

    gloo on CPUs, NCCL with one GPU a process; see `local_device`.
    """
    # oneDNN compiles a kernel for each size of a batch. There are few (see `BUCKET` of the front
    # ends), but more than the 1,024 kernels that it keeps. Each takes some 0.1 MB.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")
    device = local_device()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield World(0, 1, device)
        return
    follow_parent()  # torchrun
    store, rank, size = next(rendezvous("env://", timeout=TIMEOUT))
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=PrefixStore("collectives", store),
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
    )
    heartbeat = Heartbeat(PrefixStore("heartbeat", store), rank, size, TIMEOUT)
    try:
        yield World(rank, size, device, heartbeat)
    finally:
        heartbeat.end()
        dist.destroy_process_group()
