"""Run the whole pipeline on synthetic clips: prepare, pretrain, extract, finetune, report.

    mmembed demo --out demo

Every step is a program of its own, started as a user would start it, and does nothing when its work
is done: the same command continues after an interruption.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from mmembed.commands.subprograms import MMEMBED, run_command, torchrun
from mmembed.io.json import write_json
from mmembed.streams import STREAMS, subset_name


@dataclass(frozen=True)
class Demo:
    """Settings of the command.

    Attributes:
        out: The folder for all results.
        speakers: How many synthetic speakers there are.
        clips_per_speaker: How many clips each speaker has.
        epochs: How many epochs the encoder is pre-trained for.
        processes: How many processes torchrun starts.
        seed: The seed of the corpus and of training.
    """

    out: Path = Path("demo")
    speakers: int = 30
    clips_per_speaker: int = 48
    epochs: int = 23
    processes: int = 2
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Run all steps, then say what came out and where the report is."""
    demo = tyro.cli(Demo, prog="mmembed demo", args=argv, description=__doc__)
    started = time.monotonic()
    out, every = demo.out, subset_name(STREAMS)
    shards, pretrain = out / "corpus" / "shards", out / "pretrain"
    extract = [
        *torchrun(demo.processes, "mmembed_export.extract"), str(shards), "--streams", "every",
        "--records-per-shard", "256",  # small shards: each process makes some of them
    ]  # fmt: skip
    steps = {
        "make a corpus of talkers": [
            *MMEMBED, "prepare", "talkers", "--out", str(out / "corpus"),
            "--speakers", str(demo.speakers), "--clips-per-speaker", str(demo.clips_per_speaker),
            "--seed", str(demo.seed), "--workers", str(demo.processes),
        ],
        "pretrain the encoder on speech and speakers": [
            *torchrun(demo.processes, "mmembed_train.pretrain"), "tiny", "--out", str(pretrain),
            "--data.shards", str(shards), "--loop.epochs", str(demo.epochs),
            "--loop.seed", str(demo.seed),
        ],
        "embed all clips": [
            *extract, "--encoder", str(pretrain / "encoder"), "--out", str(out / "embeddings"),
        ],
        "embed all clips with the untrained encoder": [
            *extract, "--encoder", str(pretrain / "untrained"),
            "--out", str(out / "embeddings-untrained"),
        ],
        "train the emotion regressor": [
            *torchrun(demo.processes, "mmembed_train.finetune"), "emotion",
            "--embeddings", str(out / "embeddings"),
            "--untrained", str(out / "embeddings-untrained"), "--out", str(out / "emotion"),
        ],
    }  # fmt: skip
    for number, (what, command) in enumerate(steps.items(), 1):
        minutes = (time.monotonic() - started) / 60
        print(f"\n[{number}/{len(steps) + 1}] {what}  ({minutes:.1f} min so far)", flush=True)
        run_command(what, command)
    results = _summary(out)
    write_json(out / "results.json", results)
    print(f"\n[{len(steps) + 1}/{len(steps) + 1}] write the report", flush=True)
    run_command("write the report", [*MMEMBED, "report", str(out)])
    print(
        f"\nword error rate {results['wer']:.1%} and speaker accuracy "
        f"{results['speaker_accuracy']:.1%} on utterances that are not in train;\nsentiment "
        f"correlation {results['sentiment_correlation'][every]:.3f} on new speakers "
        f"(untrained encoder {results['sentiment_correlation_untrained']:.3f}).\n"
        f"{(time.monotonic() - started) / 60:.1f} minutes. Report: {out / 'report.html'}\n"
        "It was trained on synthetic voices and drawn faces alone: `mmembed predict CLIP"
        f"{'' if out == Demo.out else f' --run {out}'}` says so of other clips."
    )


def _summary(out: Path) -> dict[str, Any]:
    """The figures of the run in one flat object."""
    speech = json.loads((out / "pretrain" / "evaluation.json").read_text())
    emotion = json.loads((out / "emotion" / "results.json").read_text())
    every = subset_name(STREAMS)

    def correlations(results: dict[str, Any]) -> dict[str, float]:
        variants = results["tests"]["sentiment"]["variants"]
        return {name: scores["correlation"]["mean"] for name, scores in variants.items()}

    untrained = correlations(emotion["controls"]["untrained"])
    return {
        "wer": speech["heldout"]["wer"],
        "wer_new_speakers": speech["test"]["wer"],
        "speaker_accuracy": speech["heldout"]["speaker_accuracy"],
        "sentiment_correlation": correlations(emotion),
        "sentiment_correlation_untrained": untrained[every],
        "sentiment_correlation_untrained_by_streams": untrained,
    }
