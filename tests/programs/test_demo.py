"""The whole pipeline on a few clips, with real processes; the figures mean nothing here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmembed.batch import stream_subsets, subset_name


def mmembed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmembed.commands.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo of a few speakers and two epochs."""
    folder = tmp_path_factory.mktemp("demo")
    done = mmembed("demo", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "demo/report.html" in done.stdout
    return folder


SMALL = ("--speakers", "6", "--clips-per-speaker", "5", "--epochs", "1")


def test_results_are_complete(demo: Path) -> None:
    results = json.loads((demo / "demo" / "results.json").read_text())
    assert {"wer", "speaker_accuracy", "sentiment_correlation_untrained"} <= set(results)
    subsets = {subset_name(subset) for subset in stream_subsets()}
    assert set(results["sentiment_correlation"]) == subsets
    assert all(-1 <= r <= 1 for r in results["sentiment_correlation"].values())


def test_test_speakers_were_never_trained_on(demo: Path) -> None:
    rows = [
        json.loads(line) for line in (demo / "demo/corpus/manifest.jsonl").read_text().splitlines()
    ]
    speakers = {
        s: {r["speaker"] for r in rows if r["split"] == s} for s in ("train", "test", "dev")
    }
    assert speakers["train"] and speakers["test"] and speakers["dev"]
    assert not speakers["train"] & (speakers["test"] | speakers["dev"])
    sentences = {s: {r["transcript"] for r in rows if r["split"] == s} for s in ("train", "test")}
    assert not sentences["train"] & sentences["test"]


def test_again_reuses_everything(demo: Path) -> None:
    kept = [p for p in (demo / "demo").rglob("*") if p.suffix in (".tar", ".safetensors", ".mp4")]
    before = {p: p.stat().st_mtime_ns for p in kept}
    results = (demo / "demo" / "results.json").read_bytes()
    done = mmembed("demo", *SMALL, cwd=demo)
    assert done.returncode == 0, done.stderr[-2000:]
    assert before == {p: p.stat().st_mtime_ns for p in kept}
    assert (demo / "demo" / "results.json").read_bytes() == results


@pytest.mark.slow
def test_killed_at_every_step_it_ends_with_the_same_numbers(demo: Path, tmp_path: Path) -> None:
    """SIGKILL to the demo alone: what it had started stops by itself, the next run goes on."""
    out = tmp_path / "demo"
    marks = [
        "corpus/clips/*.mp4", "corpus/shards/shard-*.tar", "pretrain/metrics.jsonl",
        "embeddings/*/shard-*.tar", "embeddings-untrained/*/shard-*.tar", "emotion/run.json",
    ]  # fmt: skip
    for mark in marks:
        command = [sys.executable, "-m", "mmembed.commands.cli", "demo", *SMALL]
        running = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while running.poll() is None and not list(out.glob(mark)):
            time.sleep(0.02)
        assert running.poll() is None, mark
        running.kill()
        running.wait()
    done = mmembed("demo", *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (out / "results.json").read_bytes() == (demo / "demo/results.json").read_bytes()
    before, after = (list((f / "demo").rglob("*.tmp")) for f in (demo, tmp_path))
    assert before == after == []


def test_predict_says_which_streams_it_used(demo: Path) -> None:
    clips = sorted((demo / "demo" / "corpus" / "clips").glob("*.mp4"))[:2]
    done = mmembed("predict", *map(str, clips), cwd=demo)
    assert done.returncode == 0 and done.stdout.count("audio+video ") == 2
    with_text = mmembed("predict", str(clips[0]), "--text", "What a day!", "--json", cwd=demo)
    row = json.loads(with_text.stdout)
    assert row["streams"] == "audio+video+text" and -3 <= row["sentiment"] <= 3
    assert 0 <= row["fear"] <= 3
    bad = mmembed("predict", str(clips[0]), "none.mp4", cwd=demo)
    assert bad.returncode == 3 and "none.mp4: no such file" in bad.stderr
