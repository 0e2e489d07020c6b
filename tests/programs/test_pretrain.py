"""Pre-training as a user runs it: torchrun, stop, kill, resume, refuse."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers.forker import Forker
from helpers.pretraining import (
    PROGRAM,
    SENTENCES,
    clip,
    end_after_three_steps,
    result_of,
    settings,
    write_clips,
)

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import ShardSet, shard_path, write_shard
from mmembed.embedder import Embedder
from mmembed.embedder.folder import FILES, TOKENIZER

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short random clips of four speakers with transcripts; one transcript is impossible."""
    random = np.random.default_rng(0)
    clips = []
    for number in range(40):
        words = {"transcript": " ".join(SENTENCES * 20)} if number == 3 else {}
        split = "heldout" if number % 10 == 9 else "train"
        frames = int(random.integers(100, 180))
        clips.append(clip(number, frames, random=random, split=split, **words))
    return write_clips(tmp_path_factory.mktemp("corpus"), clips)


def command(shards: Path, out: Path, *more: str, processes: int = 2) -> list[str]:
    start = [*TORCHRUN, str(processes)] if processes > 1 else [sys.executable]
    return [*start, str(PROGRAM), *settings(shards, out, *more)]


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        arguments, capture_output=True, text=True, env=environment, check=False, timeout=180
    )


@pytest.fixture(scope="module")
def pretrain() -> Iterator[Forker]:
    made = Forker(PROGRAM, "mmembed.pretraining.pretrain")
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two processes."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    done = run(command(shards, out))
    assert done.returncode == 0, done.stderr
    assert "1 transcripts are too long" in done.stdout
    assert json.loads((out / "impossible_transcripts.json").read_text()) == ["made-03"]
    return out


def test_a_finished_run_holds_everything(undisturbed: Path) -> None:
    _, scores, lines = result_of(undisturbed)
    assert scores["heldout"]["wer"] >= 0 and scores["heldout"]["speakers"] == 2
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert 0 < lines[0]["learning_rate"] < lines[1]["learning_rate"]
    for name in ("untrained", "encoder"):
        assert {path.name for path in (undisturbed / name).iterdir()} == {*FILES} - {TOKENIZER}
    embedder = Embedder.from_pretrained(undisturbed / "encoder")
    (data,) = embedder.config["data"]
    assert data["utterances"] == 36 and data["licences"] == {"CC BY 4.0": 36}
    assert embedder.config["evaluation"]["heldout"]["wer"] == scores["heldout"]["wer"]
    made = Example(Utterance("made", None), audio=np.zeros(16_000, np.int16))
    assert embedder.encode([made]).frames.lengths.tolist() == [25]
    assert embedder.recogniser is not None


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.long), signal.SIGKILL]
)
def test_stopped_and_resumed_equals_undisturbed(
    shards: Path, undisturbed: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Bitwise: weights, scores and losses; SIGTERM in the middle, or SIGKILL of everything.

    It goes on with another number of loader workers than it started with.
    """
    out = tmp_path / "run"
    end_after_three_steps(command(shards, out, "--loop.workers", "2"), out, number)
    done = run(command(shards, out, "--loop.workers", "1"))
    assert done.returncode == 0, done.stderr
    assert result_of(out) == result_of(undisturbed)


@pytest.mark.long
def test_in_parts_it_trains_as_undivided_and_resumes_bit_for_bit(
    shards: Path, undisturbed: Path, tmp_path: Path
) -> None:
    parts = ["--loop.shard", "--loop.evaluate-every", "1"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    end_after_three_steps(command(shards, killed, *parts), killed, signal.SIGKILL)
    for out in (killed, whole):
        done = run(command(shards, out, *parts))
        assert done.returncode == 0, done.stderr
    assert result_of(killed) == result_of(whole)
    train = [line for line in result_of(whole)[2] if line["split"] == "train"]
    for line, other in zip(train, result_of(undisturbed)[2], strict=True):
        assert line.pop("split") == other.pop("split")
        assert line == pytest.approx(other, rel=1e-3)
    assert sum(line["split"] == "dev" for line in result_of(whole)[2]) == 2


def test_the_same_command_again_does_nothing(
    pretrain: Forker, shards: Path, undisturbed: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()}
    ((code, said),) = pretrain(settings(shards, undisturbed), cwd="/")
    assert code == 0, said
    assert before == {p: p.stat().st_mtime_ns for p in undisturbed.rglob("*") if p.is_file()}


def test_other_settings_in_the_same_folder_are_refused(
    pretrain: Forker, shards: Path, undisturbed: Path
) -> None:
    ((code, said),) = pretrain(settings(shards, undisturbed, "--optim.lr", "0.5"), cwd="/")
    assert code == 2
    assert "optim.lr: 0.002 -> 0.5" in said.splitlines()[-1]


@pytest.mark.long
def test_four_processes_on_three_shards_end(shards: Path, tmp_path: Path) -> None:
    """R6: sorted and weighted batches, some with fewer clips than there are processes."""
    folder = tmp_path / "shards"
    every = ShardSet(shards)
    for number in range(3):
        records = [every.read(index) for index in range(number, 11, 3)]
        write_shard(shard_path(folder, number), records, {})
    out = tmp_path / "run"
    more = ["--data.pool", "20", "--data.weights", "1.5", "--data.frames", "100"]
    done = run(command(folder, out, *more, "--loop.workers", "1", processes=4))
    assert done.returncode == 0, done.stderr
    assert f"{folder}: 10 x 1.5 = 15 an epoch" in done.stdout
    _, _, lines = result_of(out)
    assert len(lines) >= 3 * 5 and all(math.isfinite(line["loss"]) for line in lines)


def test_bad_calls_are_one_line(pretrain: Forker, shards: Path, tmp_path: Path) -> None:
    for arguments, words in (
        (["nonsense", "--out", str(tmp_path)], "name a recipe first"),
        (["tinny", "--out", str(tmp_path)], "; did you mean tiny?"),
        ([f"{tmp_path}/run.json", "--out", str(tmp_path)], "no such file; name the run.json"),
        (["tiny", "--out", str(tmp_path)], "--data.shards"),
        (["tiny", "--out", str(tmp_path), "--data.shards", str(tmp_path / "none")], "none"),
        (
            ["tiny", "--out", str(tmp_path), "--data.shards", "a", "b", "--data.weights", "2"],
            "1 --data.weights for 2 --data.shards",
        ),
        (
            ["tiny", "--out", str(tmp_path), "--data.shards", "a", "--data.weights", "-1"],
            "must be a number above 0",
        ),
    ):
        ((code, said),) = pretrain(arguments, cwd="/")
        assert code in (2, 4), said
        assert words in said and said.count("\n") == 1
