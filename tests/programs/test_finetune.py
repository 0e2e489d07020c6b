"""The emotion regressor as a user trains it: alone, and under torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mmembed_train.finetune import main

from mmembed.data.shards.layout import Record, finish, shard_path, write_shard

PROGRAM = Path(__file__).parents[2] / "train" / "finetune.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
CLIPS = {"train": 64, "dev": 16, "test": 24}


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two stream subsets of made-up vectors; sentiment is a column of the second layer of audio."""
    folder = tmp_path_factory.mktemp("embeddings")
    random = np.random.default_rng(0)
    feelings = {split: random.normal(0, 1, count).clip(-3, 3) for split, count in CLIPS.items()}
    emotions = {split: random.uniform(0, 3, (count, 6)) for split, count in CLIPS.items()}
    for subset in ("audio", "video"):
        records = []
        for split, count in CLIPS.items():
            for index in range(count):
                layers = random.standard_normal((2, 12)).astype(np.float32)
                sentiment = float(feelings[split][index])
                if subset == "audio":
                    layers[1, 3] = sentiment
                described = {
                    "speaker": f"{split}-{index % 4}",
                    "labels": {
                        "sentiment": sentiment,
                        "emotions": emotions[split][index].tolist(),
                    },
                }
                records.append(
                    Record(
                        f"{split}-{index}",
                        {"layers.npy": layers, "json": described},
                        {"split": split, "speaker": described["speaker"]},
                    )
                )
        write_shard(shard_path(folder / subset, 0), records, {})
        finish(folder / subset, layers=["first", "second"], streams=[subset])
    return folder


def finetune(embeddings: Path, out: Path, start: list[str]) -> None:
    done = subprocess.run(
        [*start, str(PROGRAM), "emotion", "--embeddings", str(embeddings), "--out", str(out),
         "--untrained", str(embeddings)],
        capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def alone(embeddings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "alone"
    finetune(embeddings, out, [sys.executable])
    return out


def test_finds_what_is_in_the_vectors(alone: Path) -> None:
    results = json.loads((alone / "results.json").read_text())
    variants = results["tests"]["sentiment"]["variants"]
    found = {name: scores["correlation"]["mean"] for name, scores in variants.items()}
    assert found["audio"] > 0.6 and abs(found["video"]) < 0.4
    weights = results["layer_weights"]
    assert list(weights) == ["first", "second"]
    assert sum(weights.values()) == pytest.approx(1, abs=1e-5)


def test_the_same_vectors_give_the_same_scores(alone: Path) -> None:
    """Here the trained and the untrained encoder have the same embeddings."""
    results = json.loads((alone / "results.json").read_text())
    assert results["controls"]["untrained"]["tests"] == results["tests"]


@pytest.mark.slow
def test_processes_change_nothing(embeddings: Path, alone: Path, tmp_path: Path) -> None:
    finetune(embeddings, tmp_path / "two", TORCHRUN)
    files = sorted(p.relative_to(alone) for p in alone.rglob("*") if p.is_file())
    tensors = [f for f in files if f.suffix == ".safetensors"]
    # Of two encoders and two subsets: methods of three seeds, distances; and predictions.
    assert len(tensors) == 2 * 2 * (3 + 1) + 2
    for file in files:
        if file.name != "environment.json":  # says how many processes there were
            assert (alone / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_self_mm_reads_the_same_embeddings(embeddings: Path, tmp_path: Path) -> None:
    main(
        ["self_mm", "--embeddings", str(embeddings), "--out", str(tmp_path / "out"),
         "--loop.seeds", "0", "--optim.lr", "1e-2"]
    )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    variants = results["tests"]["test"]["variants"]
    assert list(variants) == ["self_mm", "multimodal", "audio", "video"]
    found = {name: scores["correlation"]["mean"] for name, scores in variants.items()}
    assert found["audio"] > 0.6 and found["self_mm"] > 0.6 and abs(found["video"]) < 0.4
