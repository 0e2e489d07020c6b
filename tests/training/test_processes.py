"""Two real processes: they start from the same checkpoint whatever each of them sees."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.support import random_item, small_method

from mmembed.data.item import collate
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.settings.optim import OptimConfig
from mmembed.streams import stream_subsets
from mmembed.training.checkpoint import Position, TrainingState, save_checkpoint
from mmembed.training.distributed import ALONE
from mmembed.training.optim import build_optimizer
from mmembed.training.step import train_step

ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
}


def run_two(script: str, *arguments: str, timeout: float = 240) -> list[tuple[int, str]]:
    """(exit code, stderr) of each process of a world of two."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env={**world, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    said = [process.communicate(timeout=timeout)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, said, strict=True)]


# What each of the two sees: total steps of its checkpoints, and which of them is damaged; and where
# both have to go on.
CASES: dict[str, tuple[dict[int, bool], dict[int, bool], int | None]] = {
    "missing": ({1: True, 2: True}, {}, 2),
    "older": ({1: True, 2: True}, {1: True}, 2),
    "newer": ({1: True}, {1: True, 2: True}, 1),
    "damaged there": ({1: True, 2: True}, {1: True, 2: False}, 2),
    "damaged here": ({1: True, 2: False}, {1: True, 2: True}, 1),
    "none": ({}, {1: True, 2: True}, None),
}
BATCH = collate([random_item(subset, seed) for seed, subset in enumerate(stream_subsets())])


def make(seed: int) -> tuple[CtcSpeaker, torch.optim.AdamW]:
    """A method that has taken a step."""
    method = small_method()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.normal_(std=0.1, generator=generator)
    optimizer = build_optimizer(method, OptimConfig())
    train_step(method, optimizer, [BATCH], rate=0.1, clip=1.0, world=ALONE)
    return method, optimizer


RESTORE = """
import sys, torch
from pathlib import Path
from torch.nn.parallel import DistributedDataParallel
from test_processes import BATCH, CASES, make
from mmembed.errors import CorruptError
from mmembed.training.checkpoint import Position, load_latest
from mmembed.training.distributed import join_world
from mmembed.training.step import train_step

root = Path(sys.argv[1])
with join_world() as world:
    for name, (_, _, total) in CASES.items():
        method, optimizer = make(100 + world.rank)
        position = load_latest(root / name / str(world.rank), method, optimizer, world)
        assert position == (total and Position(0, total, total)), (name, position)
        model = DistributedDataParallel(method)
        if position is None:
            continue
        result = train_step(model, optimizer, [BATCH], rate=0.1, clip=1.0, world=world,
                            requests=lambda: (world.rank == 1, False))
        assert result.applied and result.requests == (1, 0), result
        state = {**method.state_dict()}
        for number, held in optimizer.state_dict()["state"].items():
            state |= {f"{number} {key}": value for key, value in held.items()}
        for key, value in state.items():
            first, second = world.gather(value)
            assert torch.equal(first, second), (name, key)
    assert world.broadcast("ours" if world.is_main else "theirs") == "ours"
    assert world.collect(world.rank) == ([0, 1] if world.is_main else [])
    try:
        load_latest(root / "older" / str(world.rank), torch.nn.Linear(1, 1), optimizer, world)
    except CorruptError as error:
        assert "step-00000002" in str(error)
    else:
        raise AssertionError("it fits")
"""


@pytest.mark.long
def test_processes_that_see_different_checkpoints_start_from_one(tmp_path: Path) -> None:
    states = {total: make(total) for total in (1, 2)}
    for name, (*seen, _) in CASES.items():
        for rank, checkpoints in enumerate(seen):
            for total, whole in checkpoints.items():
                folder = tmp_path / name / str(rank)
                path = save_checkpoint(
                    folder, TrainingState.of(*states[total]), Position(0, total, total)
                )
                if not whole:
                    (path / "trainer.pt").write_bytes(b"cut")
    for code, said in run_two(RESTORE, str(tmp_path)):
        assert code == 0, said


BUSY = """
import datetime, os, signal, sys, time
from mmembed.errors import MmembedError
from mmembed.training import distributed, heartbeat
distributed.TIMEOUT = datetime.timedelta(seconds=5)
heartbeat.EVERY = 0.1
if os.environ["RANK"] == "1":
    open(sys.argv[1], "w").write(str(os.getpid()))
with distributed.join_world() as world:
    if world.is_main:
        time.sleep(12)
    assert world.broadcast(world.rank) == 0
    if not world.is_main:
        time.sleep(12)
    world.wait()
    if not world.is_main:
        os.kill(os.getpid(), signal.SIGSTOP)
    try:
        world.wait()
    except MmembedError as error:
        print(error, file=sys.stderr, flush=True)
        os.kill(int(open(sys.argv[1]).read()), signal.SIGKILL)
        os._exit(7)
"""


@pytest.mark.long
def test_a_busy_process_is_waited_for_and_a_stopped_one_is_not(tmp_path: Path) -> None:
    """Twice as long as any collective waits."""
    (code, said), (stopped, _) = run_two(BUSY, str(tmp_path / "pid"))
    assert (code, stopped) == (7, -9), said
    assert "process 1 has given no sign of life for 5 s" in said
