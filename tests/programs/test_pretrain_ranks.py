"""pretrain.py under torchrun when a process is stopped, killed, or sees something else."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.pretraining import PROGRAM, clip, result_of, settings, write_clips

pytestmark = pytest.mark.long

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHORT = ("--loop.epochs", "4", "--loop.evaluate-every", "2", "--data.frames", "60")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {7: "heldout", 8: "dev", 9: "heldout"}
    clips = [clip(n, 100 + n, split=splits.get(n % 10, "train")) for n in range(60)]
    return write_clips(tmp_path_factory.mktemp("corpus"), clips)


@pytest.fixture(scope="module")
def undisturbed(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert finish(corpus, out).returncode == 0
    return out


def start(corpus: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TORCHRUN, str(PROGRAM), *settings(corpus, out, *SHORT)],
        env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(corpus: Path, out: Path) -> subprocess.CompletedProcess[str]:
    process = start(corpus, out)
    said, _ = process.communicate(timeout=500)
    return subprocess.CompletedProcess([], process.returncode, said)


def children(process: subprocess.Popen[str]) -> list[int]:
    """The training processes, in the order of their ranks."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            ranks = [v for v in environment if v.startswith(b"RANK=")]
            if int(status[1]) == process.pid and ranks:
                found.append((ranks[0], int(entry.name)))
    return [pid for _, pid in sorted(found)]


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def has_lines(out: Path, number: int) -> Callable[[], bool]:
    record = out / "metrics.jsonl"
    return lambda: record.exists() and record.read_bytes().count(b"\n") >= number


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_one_process_is_ended(
    corpus: Path, undisturbed: Path, tmp_path: Path, rank: int, number: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(corpus, out)
    wait_for(has_lines(out, 4), process)
    os.kill(children(process)[rank], number)
    said, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and not (out / "evaluation.json").exists()
    if number == signal.SIGTERM:
        assert said.count("run again to continue") == 2  # both stop at the same step
    assert finish(corpus, out).returncode == 0
    assert result_of(out) == result_of(undisturbed)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_stands_still_for_90_seconds(
    corpus: Path, undisturbed: Path, tmp_path: Path, rank: int
) -> None:
    out = tmp_path / "run"
    process = start(corpus, out)
    wait_for(has_lines(out, 4), process)
    still = children(process)[rank]
    os.kill(still, signal.SIGSTOP)
    time.sleep(90)
    os.kill(still, signal.SIGCONT)
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert result_of(out) == result_of(undisturbed)


def test_the_job_is_stopped_at_random_moments(
    corpus: Path, undisturbed: Path, tmp_path: Path
) -> None:
    """SIGTERM and Ctrl-C for torchrun, which hands them on; 20 times, then undisturbed."""
    draw, out = random.Random(0), tmp_path / "run"
    codes = set()
    for _ in range(20):
        process = start(corpus, out)
        time.sleep(draw.uniform(3, 14))
        process.send_signal(draw.choice([signal.SIGTERM, signal.SIGINT]))
        said, _ = process.communicate(timeout=200)
        codes.add(process.returncode)
        assert "CorruptError" not in said and "error: [Errno" not in said, said
    done = finish(corpus, out)
    assert done.returncode == 0, done.stdout
    assert result_of(out) == result_of(undisturbed), codes


def test_processes_that_read_other_shards_do_not_start(corpus: Path, tmp_path: Path) -> None:
    less = write_clips(tmp_path / "less", [clip(n, 100) for n in range(10)])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {**ENVIRONMENT, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    started = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), *settings(shards, tmp_path / "run", *SHORT)],
            env={**world, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, shards in enumerate((corpus, less))
    ]
    for process in started:
        _, said = process.communicate(timeout=240)
        assert process.returncode == 2 and "process 1 of 2 sees other records" in said, said
    assert not (tmp_path / "run").exists()
