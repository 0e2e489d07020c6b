"""What a run was computed with: on the same, the same settings give the same figures."""

from __future__ import annotations

import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from mmembed.config import read_json
from mmembed.io.json import write_json
from mmembed.training.distributed import World

FILE: Final = "environment.json"  # {"environments": [...]}, in the order of starts

Environment = dict[str, Any]


def record_environment(out: Path, world: World) -> None:
    """Add what this process computes with to OUT/environment.json, unless the last start says so.

    Args:
        out: folder of a run, opened already.
        world: the processes that train it.
    """
    there, here = read_environments(out), environment(world)
    if there[-1:] != [here]:
        write_json(out / FILE, {"environments": [*there, here]})


def read_environments(out: Path) -> list[Environment]:
    """Those in which a run was started; none where it was made before they were recorded."""
    path = out / FILE
    return list(read_json(path)["environments"]) if path.exists() else []


def environment(world: World) -> Environment:
    """Versions, processor, and how many processes and threads there are."""
    gpu = world.device.type == "cuda"
    return {
        "mmembed": version("mmembed"),
        "torch": version("torch"),
        "device": torch.cuda.get_device_name(world.device) if gpu else _processor(),
        "processes": world.size,
        "threads": torch.get_num_threads(),
    }


def _processor() -> str:
    """The name that the processor gives itself."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
