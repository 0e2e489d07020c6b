"""Ray clusters of several nodes on this machine, by loopback alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}
HEAD = {**NODE, "num_cpus": 0}  # takes no work


@contextmanager
def ray_cluster(nodes: int) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of a head and so many nodes of one CPU."""
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets are short
    with mock.patch.dict(os.environ, RAY_TMPDIR=folder):
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        try:
            for _ in range(nodes):
                cluster.add_node(**NODE)
            yield cluster
        finally:
            cluster.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Dies:
    """In place of `MakeShard`: its process dies of these shards."""

    numbers: tuple[int, ...]

    @property
    def opened(self) -> Any:
        return SimpleNamespace(plan=SimpleNamespace(folders={}))

    def __call__(self, number: int) -> None:
        if number in self.numbers:
            os._exit(1)


def makers(doing: str = "") -> dict[int, int]:
    """Actors of ours on this machine, or those that do this: process number -> that of its node."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(f"ray::_Maker{doing}".encode()):
                status = (process / "status").read_text()
                found[int(process.name)] = int(status.partition("PPid:")[2].split()[0])
    return found


def node_at_work(cluster: Any) -> Any:
    """A node of the cluster on which an actor makes a shard at this moment."""
    numbers = {node.all_processes["raylet"][0].process.pid: node for node in cluster.worker_nodes}
    until = time.monotonic() + 60
    while not (found := makers(".make")) and time.monotonic() < until:
        pass
    return numbers[next(iter(found.values()))]
