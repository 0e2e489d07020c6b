"""The whole pipeline on a few clips, with real processes; the figures mean nothing here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.clips import write_video

from mmembed.commands.cli import run_program
from mmembed.commands.predict import main as predict_main
from mmembed.streams import stream_subsets, subset_name


def mmembed(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmembed.commands.cli", *arguments],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=1800,
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


Predicted = tuple[int, str, str]


@pytest.fixture
def predict(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Predicted]:
    """`mmembed predict` in the folder of the demo: exit code, standard output and error."""
    monkeypatch.chdir(demo)

    def run(*arguments: object) -> Predicted:
        capsys.readouterr()
        code = run_program(predict_main, list(map(str, arguments)))
        return code, *capsys.readouterr()

    return run


SMALL = ("--speakers", "6", "--clips-per-speaker", "5", "--epochs", "1", "--processes", "1")


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


@pytest.mark.long
def test_again_reuses_everything(demo: Path) -> None:
    kept = [p for p in (demo / "demo").rglob("*") if p.suffix in (".tar", ".safetensors", ".mp4")]
    before = {p: p.stat().st_mtime_ns for p in kept}
    results = (demo / "demo" / "results.json").read_bytes()
    done = mmembed("demo", *SMALL, cwd=demo)
    assert done.returncode == 0, done.stderr[-2000:]
    assert before == {p: p.stat().st_mtime_ns for p in kept}
    assert (demo / "demo" / "results.json").read_bytes() == results


@pytest.mark.long
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


def test_predict_says_which_streams_it_used(demo: Path, predict: Callable[..., Predicted]) -> None:
    clips = sorted((demo / "demo" / "corpus" / "clips").glob("*.mp4"))[:2]
    done = mmembed("predict", *map(str, clips), cwd=demo)  # the installed program, once
    assert done.returncode == 0 and done.stdout.count("audio+video ") == 2
    _, said, _ = predict(clips[0], "--text", "What a day!", "--json")
    row = json.loads(said)
    assert row["streams"] == "audio+video+text" and -3 <= row["sentiment"] <= 3
    assert 0 <= row["fear"] <= 3
    assert 0 <= row["farther_than"] <= 1
    code, _, told = predict(clips[0], "none.mp4")
    assert code == 3 and "none.mp4: no such file" in told


def test_predict_says_what_it_knows_and_what_it_does_not(
    demo: Path, predict: Callable[..., Predicted]
) -> None:
    rows = [
        json.loads(line) for line in (demo / "demo/corpus/manifest.jsonl").read_text().splitlines()
    ]
    held = [r["media"] for r in rows if r["split"] == "heldout"]
    known = [str(demo / "demo" / "corpus" / media) for media in held]
    noise = np.random.default_rng(0).normal(0, 0.3, (2, 16000)).astype(np.float32)
    for number, sound in enumerate(noise):
        path = demo / f"noise-{number}.mp4"
        pictures = np.random.default_rng(number).integers(0, 255, (25, 96, 96, 3), np.uint8)
        write_video(path, pictures, np.arange(25) / 25, sound)
    strange = [str(path) for path in sorted(demo.glob("noise-*.mp4"))]
    code, said, problem = predict(*known, *strange, "--json")
    assert code == 0, problem
    told = [json.loads(line) for line in said.splitlines()]
    assert [one["outside"] for one in told] == [False] * len(known) + [True] * len(strange)
    assert all(one["farther_than"] == 1 for one in told[len(known) :])
    clips = sum(r["split"] == "train" for r in rows)
    data = "corpus (talkers: synthetic voices and drawn faces)"
    assert told[0]["trained_on"].startswith(f"{data}, {clips} clips, ")
    assert told[0]["encoder_trained_on"].startswith(f"{data}, {clips} utterances, ")
    _, table, warned = predict(known[0], strange[0])
    assert table.startswith(f"trained on: {told[0]['trained_on']}\nencoder trained on: ")
    lines = table.splitlines()
    assert not lines[3].endswith(" outside") and lines[4].endswith(" 100.0% outside")
    assert warned.startswith("warning: 1 of 2 clips: farther from the training clips than 99")


def test_a_regressor_of_another_encoder_is_refused(
    demo: Path, tmp_path: Path, predict: Callable[..., Predicted]
) -> None:
    clip = next((demo / "demo" / "corpus" / "clips").glob("*.mp4"))
    run = shutil.copytree(demo / "demo" / "emotion", tmp_path / "run" / "emotion").parent
    shutil.copytree(demo / "demo/pretrain/untrained", run / "pretrain" / "encoder")
    code, _, told = predict(clip, "--run", run)
    assert code == 2 and "vectors of another encoder" in told
    (run / "emotion" / "trained-on.json").unlink()  # as older versions left it
    shutil.rmtree(run / "emotion" / "familiarity")
    code, said, told = predict(clip, "--run", run)
    assert code == 0, told
    assert said.startswith("trained on: not recorded\nencoder trained on: not recorded\n")
    assert said.splitlines()[-1].endswith(" ?")
