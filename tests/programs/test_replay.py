"""Finished runs run again by `mmembed replay`: the same figures, and what makes others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.pretraining import PROGRAM, clip, settings, write_clips
from mmembed_train.finetune import main as finetune

from mmembed.commands.replay import main as replay
from mmembed.data.shards.layout import Record, finish, shard_path, write_shard
from mmembed.errors import MmembedError, UsageError


def embed(folder: Path, seed: int) -> None:
    """Made-up vectors of 24 clips with a sentiment."""
    random = np.random.default_rng(seed)
    records = []
    for index in range(24):
        split = ("train", "train", "dev", "test")[index % 4]
        described = {"speaker": f"s{index}", "labels": {"sentiment": random.uniform(-3, 3)}}
        layers = random.standard_normal((2, 8)).astype(np.float32)
        fields = {"split": split, "speaker": f"s{index}"}
        records.append(Record(f"c{index}", {"layers.npy": layers, "json": described}, fields))
    write_shard(shard_path(folder / "audio", 0), records, {})
    finish(folder / "audio", layers=["first", "second"], streams=["audio"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on embeddings, and beside it the second run."""
    folder = tmp_path_factory.mktemp("replayed")
    embed(folder / "embeddings", 0)
    settings = ["--loop.seeds", "3", "--loop.epochs", "2", "--optim.lr", "0.02"]
    where = ["--embeddings", str(folder / "embeddings"), "--out", str(folder / "run")]
    finetune(["emotion", *where, *settings])
    replay([str(folder / "run")])
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of both."""
    shutil.copytree(finished.with_name("run-replay"), tmp_path / "run-replay")
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_every_figure_is_equal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replay([str(run)])
    again = run.with_name("run-replay")
    assert (again / "run.json").read_bytes() == (run / "run.json").read_bytes()
    assert (again / "results.json").read_bytes() == (run / "results.json").read_bytes()
    assert capsys.readouterr().out.endswith(" figures, all equal\n")


def test_a_figure_that_was_changed_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "results.json"
    results = json.loads(path.read_text())
    scores = results["tests"]["sentiment"]["variants"]["audio"]["mae"]
    true = scores["mean"]
    scores["mean"] = true + 0.25
    path.write_text(json.dumps(results))
    with pytest.raises(MmembedError, match=r"^1 of [0-9]+ figures of .*run are others in"):
        replay([str(run)])
    named = "results.json: tests.sentiment.variants.audio.mae.mean"
    assert f"{named}  {true + 0.25:.6g} -> {true:.6g}" in capsys.readouterr().out
    replay([str(run), "--tolerance", "0.26"])  # the second run is there already


def test_another_environment_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((run / "results.json").read_text())
    del results["seeds"]
    (run / "results.json").write_text(json.dumps(results))
    environments = json.loads((run / "environment.json").read_text())
    environments["environments"][-1]["torch"] = "1.0"
    (run / "environment.json").write_text(json.dumps(environments))
    with pytest.raises(MmembedError, match="figures"):
        replay([str(run)])
    out = capsys.readouterr().out
    assert "results.json: seeds[0]  nothing -> 3" in out
    assert "computed with another torch: 1.0 -> " in out


def test_other_data_are_refused(run: Path, finished: Path) -> None:
    embeddings = finished.parent / "embeddings"
    kept = embeddings.rename(embeddings.with_name("kept"))
    try:
        embed(embeddings, 1)
        with pytest.raises(UsageError, match="was run on other data \\(embeddings/audio: gone, or"):
            replay([str(run)])
    finally:
        shutil.rmtree(embeddings)
        kept.rename(embeddings)


def test_what_is_no_finished_run(run: Path) -> None:
    with pytest.raises(UsageError, match="is the run itself"):
        replay([str(run), "--out", str(run)])
    (run / "results.json").unlink()
    with pytest.raises(UsageError, match=r"neither evaluation\.json nor results\.json; if it was"):
        replay([str(run)])
    (run / "run.json").unlink()
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        replay([str(run)])


@pytest.mark.long
def test_two_processes_are_two_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_clips(tmp_path / "shards", [clip(n, 120 + 8 * n) for n in range(12)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = [*torchrun, "--nproc-per-node", "2", str(PROGRAM)]
    subprocess.run(
        [*program, *settings(shards, tmp_path / "run")], check=True, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    replay([str(tmp_path / "run"), "--out", str(tmp_path / "again")])
    assert "figures, all equal" in capsys.readouterr().out
    recorded = json.loads((tmp_path / "again" / "environment.json").read_text())
    assert [one["processes"] for one in recorded["environments"]] == [2]
    lines = (tmp_path / "again" / "metrics.jsonl").read_text().splitlines(keepends=True)
    edited = json.loads(lines[1]) | {"loss": 7.0}
    lines[1] = json.dumps(edited) + "\n"
    (tmp_path / "again" / "metrics.jsonl").write_text("".join(lines))
    with pytest.raises(MmembedError, match=r"^1 of"):
        replay([str(tmp_path / "run"), "--out", str(tmp_path / "again")])
    assert "metrics.jsonl line 2: loss" in capsys.readouterr().out
