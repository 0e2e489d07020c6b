"""A small corpus and pretrain.py to run on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import Record, finish, shard_path, write_shard
from mmembed.data.shards.records import to_record

PROGRAM = Path(__file__).parents[2] / "train" / "pretrain.py"
SENTENCES = ["red on blue", "set green by two", "lay white at nine", "bin one now", "place it soon"]
SIZES = {
    "width": 16, "num-heads": 2, "audio-layers": 1, "video-layers": 1, "text-layers": 1,
    "audio-channels": 4, "video-channels": 4,
}  # fmt: skip


def clip(number: int, frames: int, *, streams: Sequence[str] = ("audio", "video", "text"),
         random: np.random.Generator | None = None, **row: Any) -> Example:  # fmt: skip
    """Random sound and pictures of so many hundredths of a second, with a sentence."""
    random = random or np.random.default_rng(number)
    known: dict[str, Any] = {
        "transcript": SENTENCES[number % 5], "speaker": f"made-{number % 4}",
        "licence": "CC BY 4.0", "split": "train", **row,
    }  # fmt: skip
    utterance = Utterance(f"made-{number:02}", None, **known)
    audio = (3_000 * random.standard_normal(160 * frames)).astype(np.int16)
    video = random.integers(0, 255, (frames // 4, 64, 64)).astype(np.uint8)
    return Example(
        utterance,
        audio=audio if "audio" in streams else None,
        video=video if "video" in streams else None,
        text=utterance.transcript if "text" in streams else None,
    )


def write_clips(folder: Path, clips: Sequence[Example]) -> Path:
    """Shards of them."""
    write_shard(shard_path(folder, 0), [Record(*to_record(one)) for one in clips], {})
    finish(folder)
    return folder


def settings(shards: Path | str, out: Path | str, *more: str) -> list[str]:
    """Arguments of a run of seconds."""
    return [
        "tiny", "--out", str(out), "--data.shards", str(shards), "--data.vocabulary.size", "40",
        "--data.frames", "250", "--loop.epochs", "3", "--loop.evaluate-every", "0",
        "--loop.checkpoint-every", "0",
        *(f"--method.encoder.{name}={value}" for name, value in SIZES.items()), *more,
    ]  # fmt: skip


def result_of(out: Path) -> tuple[bytes, dict[str, Any], list[dict[str, Any]]]:
    """Weights, scores and record of a finished run, without the seconds that it took."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return (
        (out / "encoder" / "model.safetensors").read_bytes(),
        json.loads((out / "evaluation.json").read_text()),
        [{name: value for name, value in line.items() if name != "seconds"} for line in lines],
    )


def end_after_three_steps(arguments: list[str], out: Path, number: signal.Signals) -> None:
    """Start a run, and send a signal to all of its processes while it trains."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    )
    log = out / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while not (log.exists() and log.read_text().count("\n") >= 3):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    process.wait(timeout=60)
    assert not (out / "evaluation.json").exists()
