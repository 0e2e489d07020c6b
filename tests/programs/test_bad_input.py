"""extract.py as a user runs it, over clips of which some are odd and some are broken."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import webdataset
from helpers.clips import burst, grey_steps, tone, write_video

from mmembed.data.example import Example
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.pool import Decoder
from mmembed.embedder import Embedder, save_encoder
from mmembed.encoder import Encoder
from mmembed.features.text import Vocabulary
from mmembed.settings.encoder import EncoderConfig

PROGRAM = Path(__file__).parents[2] / "export" / "extract.py"
INPUTS = ["clips", "rows.jsonl"]
REASONS = {
    "clips/cut.mp4": "damaged",
    "clips/empty.mp4": "empty",
    "clips/text.mp4": "not_media",
    "row-lost": "missing",
    "row-nothing": "no_streams",
}
STREAMS = {
    "clips%2F12%2Emp4": ["audio", "video"],
    "clips%2F8k%2Emp4": ["audio", "video"],
    "clips%2Fdeep%2F12%2Emp4": ["audio", "video"],
    "clips%2Fmute%2Emp4": ["video"],
    "clips%2Fshort%2Emp4": ["audio", "video"],
    "clips%2Fsound%2Emp4": ["audio"],
    "clips%2Fsound%2Ewav": ["audio"],
    "clips%2Fvfr%2Emp4": ["audio", "video"],
    "row-stranger": ["audio", "video", "text"],
    "row-silent": ["audio", "video"],
    "row-endless": ["audio", "video", "text"],
    "row-text": ["text"],
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips/, rows.jsonl and an encoder that has learned nothing."""
    folder = tmp_path_factory.mktemp("here")
    clips = folder / "clips"
    (clips / "deep").mkdir(parents=True)
    grey, times = grey_steps(range(30, 130, 4)), np.arange(25) / 25
    slow = np.arange(12) / 12
    write_video(clips / "12.mp4", grey[:12], slow, tone(1.0), fps=12)
    write_video(clips / "8k.mp4", grey, times, np.stack([tone(1.0, 8_000)] * 2), rate=8_000)
    write_video(clips / "deep" / "12.mp4", grey[12:24], slow, burst(1.0, 0.4), fps=12)
    write_video(clips / "mute.mp4", grey, times)
    write_video(clips / "short.mp4", grey[:1], [0.0], tone(0.05))
    write_video(clips / "sound.mp4", sound=tone(0.7))
    soundfile.write(clips / "sound.wav", tone(0.7), 16_000)
    write_video(clips / "vfr.mp4", grey[:5], [0.0, 0.04, 0.4, 0.44, 1.0], tone(1.1))
    whole = write_video(folder / "whole.mp4", grey, times, tone(1.0)).read_bytes()
    (clips / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (clips / "empty.mp4").touch()
    (clips / "text.mp4").write_text("Good evening, this is no film. " * 9)
    rows = [
        Utterance("row-stranger", "whole.mp4", transcript="Good day", speaker="nobody-knows"),
        Utterance("row-silent", "whole.mp4", transcript="", end=0.5),
        Utterance("row-endless", "whole.mp4", transcript="good day to you " * 200),
        Utterance("row-text", None, transcript="Good day!"),
        Utterance("row-lost", "lost.mp4", transcript="Good day"),
        Utterance("row-nothing", None, transcript="?!"),
    ]
    write_manifest(folder / "rows.jsonl", rows)
    torch.manual_seed(0)
    vocabulary = Vocabulary.train(["good day to you", "a good evening to all"], 30)
    config = EncoderConfig(
        vocabulary_size=len(vocabulary),
        width=16,
        num_heads=2,
        audio_layers=1,
        audio_channels=4,
        video_channels=4,
    )
    save_encoder(folder / "encoder", Encoder(config), vocabulary, {})
    return folder


def extract(here: Path, out: str, *more: str, processes: int = 1) -> tuple[int, str]:
    """Exit code and stderr."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = [*INPUTS, "--encoder", "encoder", "--out", out, "--records-per-shard", "4", *more]
    done = subprocess.run(
        [sys.executable, *(torchrun if processes > 1 else []), str(PROGRAM), *arguments],
        cwd=here, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return {path.name: path.read_bytes() for path in files}


def pooled(folder: Path) -> dict[str, np.ndarray]:
    """Key -> vector, read by the plain webdataset package."""
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    return {
        record["__key__"]: np.load(io.BytesIO(record["pooled.npy"]))
        for record in webdataset.WebDataset(tars, shardshuffle=False)
    }


@pytest.fixture(scope="module")
def run(here: Path) -> tuple[int, str]:
    return extract(here, "out")


def test_each_broken_clip_has_a_reason_and_a_line(here: Path, run: tuple[int, str]) -> None:
    code, stderr = run
    assert code == 3, stderr
    lines = (here / "out" / "failed.jsonl").read_text().splitlines()
    failed = {row["item"]: row["reason"] for row in map(json.loads, lines)}
    assert failed == REASONS
    said = [line for line in stderr.splitlines() if not line.startswith("extract ")]  # progress
    for line, (name, reason) in zip(said, REASONS.items(), strict=False):
        assert line.startswith(f"failed ({reason}): {name}: ")
    assert said[-1].startswith("error: 5 of 17 failed") and len(said) == len(REASONS) + 1


def test_all_other_clips_are_there(here: Path, run: tuple[int, str]) -> None:
    tars = [str(path) for path in sorted((here / "out").glob("*.tar"))]
    records = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert len(tars) == 5
    described = {record["__key__"]: json.loads(record["json"]) for record in records}
    assert {key: value["streams"] for key, value in described.items()} == STREAMS
    assert described["row-stranger"]["speaker"] == "nobody-knows"
    for vector in pooled(here / "out").values():
        assert vector.shape == (32,) and vector.dtype == np.float32 and np.isfinite(vector).all()


def test_vectors_are_those_of_the_clips_alone(
    here: Path, run: tuple[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    embedder, vectors = Embedder.from_pretrained("encoder"), pooled(here / "out")
    with Decoder() as decoder:
        for example in decoder.load(open_sources(map(Path, INPUTS))):
            if isinstance(example, Example) and example.streams:
                alone = embedder.encode([example]).pooled[0].numpy()
                np.testing.assert_allclose(vectors.pop(example.key), alone, atol=1e-5)
    assert not vectors


@pytest.mark.slow
def test_one_clip_at_a_time_within_a_wide_budget(here: Path, run: tuple[int, str]) -> None:
    code, stderr = extract(here, "single", "--batch-frames", "1", "--error-budget", "0.9")
    assert code == 0, stderr
    single, together = pooled(here / "single"), pooled(here / "out")
    assert single.keys() == together.keys()
    for key, vector in single.items():
        np.testing.assert_allclose(vector, together[key], atol=1e-5)


def test_the_same_again_does_nothing_and_ends_alike(here: Path, run: tuple[int, str]) -> None:
    before, times = contents(here / "out"), [p.stat().st_mtime_ns for p in _tars(here / "out")]
    code, said = extract(here, "out")
    assert (code, _without_times(said)) == (run[0], _without_times(run[1]))
    assert contents(here / "out") == before
    assert [p.stat().st_mtime_ns for p in _tars(here / "out")] == times


@pytest.mark.long
def test_two_processes_write_the_same_bytes(here: Path, run: tuple[int, str]) -> None:
    code, stderr = extract(here, "double", "--error-budget", "0.9", processes=2)
    assert code == 0, stderr
    assert contents(here / "double") == contents(here / "out")


def _without_times(said: str) -> list[str]:
    """What was said but for the progress, which tells how long it took."""
    return [line for line in said.splitlines() if "so far" not in line]


def _tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))
