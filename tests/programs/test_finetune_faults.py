"""finetune.py diverged, stopped, killed, started twice, on a full disk: no table but a true one."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import extracting
from helpers.forker import Forker
from helpers.streams import write_features
from safetensors.numpy import load_file

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, ShardSet, shard_path, write_shard
from mmembed.data.shards.records import to_record

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).parents[2] / "train" / "finetune.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHORT = ["--loop.epochs", "2", "--loop.seeds", "0", "1"]
SETTINGS = {"run.json", "data.json"}  # of a run that has trained nothing
JOB = "mmembed.studies.finetune_job"
LONG = ["--loop.epochs", "100000", "--loop.seeds", "0", "1"]


def contents(out: Path) -> dict[str, bytes]:
    """All files, but what says how many processes there were."""
    every = extracting.contents(out)
    return {name: held for name, held in every.items() if name != "environment.json"}


@pytest.fixture(scope="module")
def finetunes() -> Iterator[Forker]:
    made = Forker(PROGRAM, "mmembed.studies.finetune")
    yield made
    made.close()


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "features"
    return write_features(folder, {"train": 40, "dev": 12, "test": 32})


def words(features: Path, out: Path, *more: str) -> list[str]:
    return ["self_mm", "--shards", str(features), "--out", str(out), *more]


@pytest.fixture(scope="module")
def undisturbed(
    finetunes: Forker, features: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """What a run leaves that nothing happens to."""
    out = tmp_path_factory.mktemp("runs") / "calm"
    code, said = one(finetunes, words(features, out, *SHORT))
    assert code == 0, said
    return contents(out)


def one(finetunes: Forker, argv: list[str], **request: Any) -> tuple[int, str]:
    (answer,) = finetunes(argv, cwd="/", **request)
    return answer


# A run that diverges


@pytest.mark.parametrize("rate", ["1e18", "1e4"])
def test_a_diverged_run_has_no_table(
    finetunes: Forker, features: Path, tmp_path: Path, rate: str
) -> None:
    argv = words(features, tmp_path / "out", *SHORT, "--loop.batch-size", "8", "--optim.lr", rate)
    code, said = one(finetunes, argv)
    assert code == 1 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("error: self_mm, seed 0: the loss ")
    assert said.splitlines()[-1].endswith("lower --optim.lr")
    assert set(contents(tmp_path / "out")) <= SETTINGS
    assert one(finetunes, argv)[0] == 1  # the same command does not score what was left


def test_three_steps_in_a_row_stop_it(finetunes: Forker, features: Path, tmp_path: Path) -> None:
    settings = [
        "--loop.epochs",
        "2",
        "--loop.seeds",
        "7",
        "--loop.batch-size",
        "2",
        "--loop.precision",
        "bf16",
    ]
    argv = words(features, tmp_path / "out", *settings, "--optim.lr", "1e18")
    code, said = one(finetunes, argv)
    assert code == 1
    told = said.splitlines()[-1]
    assert "self_mm, seed 7: the loss was not finite 3 steps in a row up to step" in told


def test_a_value_that_is_no_number_is_named(
    finetunes: Forker, features: Path, tmp_path: Path
) -> None:
    spoilt = Example(
        Utterance(
            "spoilt",
            "features/all.safetensors#0",
            dialogue="d",
            split="train",
            labels=Labels(category="positive"),
        ),
        features={"text": np.array([[1, 2, np.nan, 4, 5]], np.float32)},
    )
    shards = ShardSet(features)
    records = [shards.read(place) for place in range(len(shards))]
    write_shard(shard_path(tmp_path / "data", 0), [*records, Record(*to_record(spoilt))], {})
    code, said = one(finetunes, words(tmp_path / "data", tmp_path / "out", *SHORT))
    assert code == 4 and not (tmp_path / "out" / "results.json").exists()
    assert "data: spoilt: its text holds values that are not finite" in said.splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (["--loop.epochs", "0"], "setting epochs is 0: must be at least 1"),
        (["--loop.batch-size", "0"], "setting batch_size is 0: must be at least 1"),
        (["--loop.seeds"], "--loop.seeds (none): give one or more, each once"),
        (["--loop.seeds", "3", "3"], "--loop.seeds 3 3: give one or more, each once"),
        (["--optim.lr", "nan"], "setting lr is nan: must be a finite number"),
        (["--optim.lr", "0"], "setting lr is 0.0: must be above 0"),
        (["--optim.clip", "-1"], "setting clip is -1.0: must be at least 0"),
        (["--loop.summed-batches", "0"], "setting summed_batches is 0: must be at least 1"),
        (["--optim.weight-decay", "inf"], "setting weight_decay is inf: must be a finite number"),
        (["--optim.warmup", "2"], "setting warmup is 2.0: must be at least 0 and at most 1"),
    ],
)
def test_settings_that_train_nothing_are_refused(
    finetunes: Forker, features: Path, tmp_path: Path, setting: list[str], told: str
) -> None:
    code, said = one(finetunes, words(features, tmp_path / "out", *setting))
    assert code == 2 and f"error: {told}" in said.splitlines()[-1]
    assert not (tmp_path / "out").exists()


# A full disk


@pytest.mark.parametrize(
    "file", ["run.json", "seed-1.safetensors", "test.safetensors", "results.json"]
)
def test_a_full_disk_at_each_write(
    finetunes: Forker, features: Path, tmp_path: Path, undisturbed: dict[str, bytes], file: str
) -> None:
    out = tmp_path / "out"
    argv = words(features, out, *SHORT)
    injected = [{"at": "os:fsync", "file": file, "errno": errno.ENOSPC}]
    code, said = one(finetunes, argv, inject=injected)
    assert code == 74 and "Traceback" not in said
    told = said.splitlines()[-1]
    assert told.startswith("error: [Errno 28] No space left on device: ")
    assert told.endswith(f"{file}'; free some space and run again")
    left = contents(out)
    assert left.items() <= undisturbed.items() and "results.json" not in left
    assert one(finetunes, argv)[0] == 0
    assert contents(out) == undisturbed


# Signals

PHASES = [
    ("program:open_run_folder", 1),  # start
    (f"{JOB}:train_step", 1),  # training
    (f"{JOB}:train_step", 5),
    (f"{JOB}:_dev_loss", 4),
    (f"{JOB}:to_safetensors", 3),
    ("program:_load", 1),  # scoring
    ("mmembed.studies.results:save", 1),  # writing
    ("program:write_json", 1),
]


@pytest.mark.parametrize(
    ("number", "code", "told"),
    [
        (signal.SIGTERM, 75, "the same command again goes on from here"),
        pytest.param(signal.SIGINT, 130, "error: interrupted", marks=pytest.mark.long),
        pytest.param(
            signal.SIGUSR1, 75, "the same command again goes on from here", marks=pytest.mark.long
        ),
        pytest.param(signal.SIGKILL, -9, "", marks=pytest.mark.long),
    ],
)
def test_stopped_in_each_phase_it_ends_with_the_same_bytes(
    finetunes: Forker,
    features: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    number: signal.Signals,
    code: int,
    told: str,
) -> None:
    """One run, stopped again and again: in each phase, and it always goes on.

    In training it stops after a step, and none is done twice.
    """
    out = tmp_path / "out"
    argv = words(features, out, *SHORT)
    for at, call in PHASES:
        injected = [{"at": at, "call": call, "signal": int(number)}]
        found, said = one(finetunes, argv, inject=injected)
        assert "Traceback" not in said, (at, said)
        if at.endswith("train_step") and number != signal.SIGKILL:
            assert found == 75 and "stopped at step" in said.splitlines()[-1]
            assert list(out.rglob("*.checkpoint.pt"))
        else:
            assert found == code, (at, said)
            assert not told or said.splitlines()[-1].endswith(told)
        left = contents(out) if out.exists() else {}
        done = {name: held for name, held in left.items() if not name.endswith("checkpoint.pt")}
        whole = {name: held for name, held in done.items() if not name.endswith(".tmp")}
        assert "results.json" not in left and whole.items() <= undisturbed.items()
    assert one(finetunes, argv)[0] == 0
    assert contents(out) == undisturbed


def test_a_second_copy_waits_and_changes_nothing(
    finetunes: Forker, features: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    argv = words(features, tmp_path / "out", *SHORT)
    answers = finetunes(argv, argv, cwd="/")
    assert [code for code, _ in answers] == [0, 0], answers
    assert contents(tmp_path / "out") == undisturbed
    tables = [said[said.index("test (") :] for _, said in answers]
    assert tables[0] == tables[1]


# Processes under torchrun


def start(argv: list[str], out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*TORCHRUN, str(PROGRAM), *argv],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(out.parent / "said.txt").open("wb"),
        start_new_session=True,
    )


def ranks_of(run: subprocess.Popen[bytes]) -> list[int]:
    """Process ids of the ranks, rank 0 first."""
    found: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == run.pid:
                environment = (entry / "environ").read_bytes().split(b"\0")
                rank = next(x for x in environment if x.startswith(b"RANK="))
                found[int(rank[5:])] = int(entry.name)
        except (OSError, ValueError, StopIteration):
            continue
    return [pid for _, pid in sorted(found.items())]


def wait_for(out: Path, glob: str, run: subprocess.Popen[bytes]) -> None:
    while not list(out.rglob(glob)):
        assert run.poll() is None, (out.parent / "said.txt").read_text()
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_and_costs_a_restart(
    finetunes: Forker,
    features: Path,
    tmp_path: Path,
    undisturbed: dict[str, bytes],
    rank: int,
) -> None:
    out = tmp_path / "out"
    run = start(words(features, out, *LONG), out)
    wait_for(out, "run.json", run)
    while len(ranks_of(run)) < 2:
        time.sleep(0.01)
    os.kill(ranks_of(run)[rank], signal.SIGKILL)
    assert run.wait(timeout=300) == 1
    assert {name for name in contents(out) if not name.endswith(".tmp")} <= SETTINGS
    # With settings that end, the folder left by a killed run ends like an undisturbed one.
    settings = json.loads((out / "run.json").read_text())
    settings["loop"] |= {"epochs": 2}
    (out / "run.json").write_text(json.dumps(settings))
    code, said = one(finetunes, words(features, out, *SHORT))
    assert code == 0, said
    left = {name: held for name, held in contents(out).items() if name != "run.json"}
    assert left == {name: held for name, held in undisturbed.items() if name != "run.json"}


def stop_a_rank(
    features: Path, tmp_path: Path, undisturbed: dict[str, bytes], seconds: float
) -> None:
    out = tmp_path / "out"
    run = start(words(features, out, *SHORT), out)
    wait_for(out, "run.json", run)
    if len(ranks := ranks_of(run)) == 2:
        os.kill(ranks[1], signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(ranks[1], signal.SIGCONT)
    assert run.wait(timeout=500) == 0, (tmp_path / "said.txt").read_text()
    assert contents(out) == undisturbed


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_stopped_rank_is_waited_for(
    features: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    stop_a_rank(features, tmp_path, undisturbed, 3)


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_rank_stopped_for_90_seconds_is_waited_for(
    features: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    stop_a_rank(features, tmp_path, undisturbed, 90)


@pytest.mark.long
def test_a_rank_that_diverges_ends_the_others(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = start(words(features, out, *SHORT, "--optim.lr", "1e18"), out)
    assert run.wait(timeout=300) == 1
    said = (tmp_path / "said.txt").read_text()
    assert "error: self_mm, seed " in said and "lower --optim.lr" in said
    assert {name for name in contents(out) if not name.endswith(".tmp")} <= SETTINGS


# Checkpoints of a method


def test_a_killed_method_goes_on_from_its_checkpoint(
    finetunes: Forker, features: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    argv = words(features, out, *SHORT, "--loop.checkpoint-every", "0")
    killed = [{"at": f"{JOB}:train_step", "call": 4, "signal": int(signal.SIGKILL)}]  # in epoch 2
    assert one(finetunes, argv, inject=killed)[0] == -signal.SIGKILL
    (checkpoint,) = out.rglob("*.checkpoint.pt")
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: len(whole) // 2])
    code, said = one(finetunes, argv)
    assert code == 5 and said.splitlines()[-1].startswith(f"error: {checkpoint}: cannot be used (")
    checkpoint.write_bytes(whole)
    # What training begins with is not done again: of the first method, one loss on dev is left.
    counted = [{"at": f"{JOB}:_dev_loss", "call": 2, "signal": int(signal.SIGKILL)}]
    assert one(finetunes, argv, inject=counted)[0] == -signal.SIGKILL
    assert checkpoint.with_name("seed-0.safetensors").exists()
    assert one(finetunes, argv)[0] == 0
    left = contents(out)
    assert {**left, "run.json": b""} == {**undisturbed, "run.json": b""}


def test_a_method_is_trained_by_parts_of_its_batches(
    finetunes: Forker, features: Path, tmp_path: Path
) -> None:
    """Two processes give the scores of one, also where a batch has one item."""
    settings = ["--dropout", "0", "--loop.batch-size", "13", "--loop.data-parallel", *SHORT]
    scores = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        answers = finetunes(words(features, out, *settings), ranks=ranks, cwd="/")
        assert [code for code, _ in answers] == [0] * ranks, answers
        scores.append(load_file(out / "predictions" / "test.safetensors"))
    one, two = scores
    assert one.keys() == two.keys() and any("self_mm" in name for name in one)
    for name, values in one.items():
        np.testing.assert_allclose(two[name], values, atol=1e-3, err_msg=name)
