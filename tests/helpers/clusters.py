"""Ray clusters of several nodes on this machine, by loopback alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from unittest import mock

NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "include_dashboard": False}


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` of one node; `add_node(**NODE)` adds another."""
    folder = tempfile.mkdtemp(prefix="ray-")  # paths of sockets are short
    settings = {
        "RAY_TMPDIR": folder,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # addresses on loopback stay there
    }
    with mock.patch.dict(os.environ, settings):
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=NODE)
        try:
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
