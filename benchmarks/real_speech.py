"""The paper's claim on real speech: does joint training on speech and speakers help emotion?

    python benchmarks/real_speech.py CORPORA --out runs/real-speech --jobs 2

CORPORA holds the folders cmu_arctic, fsdd, emovo, emodb and ravdess. Encoders are pre-trained
without any emotion label on all of them but RAVDESS actors 01-16; then a linear probe tells the
eight emotions of these 16 actors, each by a model that never heard the actor. The probe, the
folds and the number of steps are the same for every row. Everything is restartable.

Needs the extra `baselines` (openSMILE) for the eGeMAPS rows.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

ROOT = Path(__file__).resolve().parent.parent
CORPORA = ("cmu_arctic", "fsdd", "emovo", "emodb", "ravdess")
TEST_ACTORS = [f"ravdess-{actor:02}" for actor in range(1, 17)]
VARIANTS = {  # name -> weights of speech recognition and speaker classification
    "speech + speaker": (0.8, 0.2),
    "speech only": (0.8, 0.0),
    "speaker only": (0.0, 0.2),
}

PROBES = (("probe.json",), ("probe-centred.json", "--centre-speakers"))


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        corpora: folder with the five corpora.
        out: folder for everything.
        seeds: of pre-training.
        epochs: of pre-training, the same for every variant.
        jobs: runs at a time, one thread each.
    """

    corpora: tyro.conf.Positional[Path]
    out: Path = Path("runs/real-speech")
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 20
    jobs: int = 2


def main() -> None:
    """Prepare, pre-train, extract, probe, tabulate."""
    settings = tyro.cli(Settings, description=__doc__)
    out = settings.out
    for corpus in CORPORA:
        mmembed(
            "prepare", corpus, str(settings.corpora / corpus), "--out", str(out / "data" / corpus),
            "--streams", "audio", "text", "--workers", str(settings.jobs),
        )  # fmt: skip
    runs = [(name, seed) for seed in settings.seeds for name in VARIANTS]
    with ThreadPoolExecutor(settings.jobs) as pool:
        list(pool.map(lambda run: _pretrain(settings, *run), runs))
        rows = {
            f"{name}, seed {seed}": _run_folder(out, name, seed) / "encoder" for name, seed in runs
        }
        for seed in settings.seeds:
            first = next(iter(VARIANTS))
            rows[f"untrained, seed {seed}"] = _run_folder(out, first, seed) / "untrained"
        list(pool.map(lambda row: _extract(out, *row), rows.items()))
    _baselines(out)
    for file, *options in PROBES:
        _probe(out, [*rows, "log-mel statistics", "eGeMAPS"], file, options)
    _tabulate(settings)


def mmembed(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "mmembed.commands.cli", *arguments], check=True)


def _run_folder(out: Path, name: str, seed: int) -> Path:
    return out / "pretrain" / f"{name.replace(' ', '')}-{seed}"


def shards_of(out: Path, corpus: str) -> Path:
    return out / "data" / corpus / "shards"


def _pretrain(settings: Settings, name: str, seed: int) -> None:
    speech, speaker = VARIANTS[name]
    folder = _run_folder(settings.out, name, seed)
    if (folder / "evaluation.json").exists():
        return
    mmembed(
        "pretrain", "speech", "--out", str(folder), "--loop.seed", str(seed),
        "--loop.epochs", str(settings.epochs), "--method.ctc-weight", str(speech),
        "--method.speaker-weight", str(speaker), "--data.exclude-speakers", *TEST_ACTORS,
        "--data.shards", *[str(shards_of(settings.out, corpus)) for corpus in CORPORA],
    )  # fmt: skip


def _extract(out: Path, row: str, encoder: Path) -> None:
    mmembed(
        "extract", str(shards_of(out, "ravdess")), "--encoder", str(encoder),
        "--out", str(out / "embeddings" / row), "--streams", "audio",
    )  # fmt: skip


def _baselines(out: Path) -> None:
    """eGeMAPS functionals and log-mel statistics of RAVDESS as embedding shards of one layer."""
    from mmembed.data.dataset import Examples
    from mmembed.data.manifest.jsonl import read_manifest
    from mmembed.data.manifest.utterance import to_row
    from mmembed.data.media.decode import load_clip
    from mmembed.data.shards.layout import Record, finish, is_committed, shard_path, write_shard
    from mmembed.features.audio import log_mel

    rows = {row.key: row for row in read_manifest(out / "data" / "ravdess" / "manifest.jsonl")}

    def write(name: str, vectors: dict[str, np.ndarray]) -> None:
        folder = out / "embeddings" / name / "audio"
        records = []
        for key, vector in vectors.items():
            described = to_row(rows[key])
            members = {"layers.npy": vector[None].astype(np.float32), "json": {
                "speaker": described["speaker"], "labels": described["labels"]}}  # fmt: skip
            records.append(Record(key, members, {"speaker": rows[key].speaker, "split": None}))
        write_shard(shard_path(folder, 0), records, {})
        finish(folder, layers=[name], streams=["audio"])

    if not is_committed(shard_path(out / "embeddings" / "log-mel statistics" / "audio", 0)):
        vectors = {}
        for example in Examples([shards_of(out, "ravdess")]):
            assert example.audio is not None
            mel = log_mel(example.audio).numpy()
            vectors[example.key] = np.concatenate((mel.mean(0), mel.std(0)))
        write("log-mel statistics", vectors)
    if not is_committed(shard_path(out / "embeddings" / "eGeMAPS" / "audio", 0)):
        import opensmile

        smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
        folder = out / "data" / "ravdess"
        vectors = {}
        for key, row in rows.items():
            clip = load_clip(folder / str(row.media))
            assert clip.audio is not None
            vectors[key] = smile.process_signal(clip.audio, 16_000).to_numpy()[0]
        write("eGeMAPS", vectors)


def _probe(out: Path, rows: Sequence[str], file: str, options: Sequence[str]) -> None:
    folders = [str(out / "embeddings" / row / "audio") for row in rows]
    mmembed(
        "probe", *folders, "--folds", "8", "--speakers", *TEST_ACTORS,
        "--out", str(out / file), *options,
    )  # fmt: skip


def _tabulate(settings: Settings) -> None:
    """One row a variant: mean and deviation over seeds."""
    out = settings.out
    raw, centred = (
        {Path(f).parent.name: r for f, r in json.loads((out / file).read_text()).items()}
        for file, *_ in PROBES
    )
    lines = [
        "| features | UAR | each seed, 95 % interval over actors | UAR, actors centred |"
        " CER arctic | WER arctic | CER fsdd | speakers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in [*VARIANTS, "untrained", "eGeMAPS", "log-mel statistics"]:
        known = [name] if name in raw else [f"{name}, seed {seed}" for seed in settings.seeds]
        each = ", ".join(
            f"{raw[k]['uar']:.3f} ({raw[k]['low']:.3f}-{raw[k]['high']:.3f})" for k in known
        )
        speech = _speech(out, name, settings.seeds) if name in VARIANTS else ["-"] * 4
        cells = [name, _spread(raw, known), each, _spread(centred, known), *speech]
        lines.append(f"| {' | '.join(cells)} |")
    chance = next(iter(raw.values()))["chance"]
    lines.append(f"| chance | {chance:.3f} | | {chance:.3f} | - | - | - | - |")
    (out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _spread(probed: Mapping[str, Any], rows: Sequence[str]) -> str:
    """Mean and deviation of the UAR over seeds."""
    uars = [probed[row]["uar"] for row in rows]
    deviation = f" +- {np.std(uars):.3f}" if len(uars) > 1 else ""
    return f"{np.mean(uars):.3f}{deviation}"


def _speech(out: Path, name: str, seeds: Sequence[int]) -> list[str]:
    """Means over seeds on held-out utterances; "-" for a task that was not trained."""
    scores: list[dict[str, Any]] = [
        json.loads((_run_folder(out, name, seed) / "evaluation.json").read_text())["heldout"]
        for seed in seeds
    ]
    speech, speaker = VARIANTS[name]
    cells = [
        f"{np.mean([s['by_corpus'][corpus][score] for s in scores]):.3f}" if speech else "-"
        for corpus, score in (("cmu_arctic", "cer"), ("cmu_arctic", "wer"), ("fsdd", "cer"))
    ]
    accuracy = f"{np.mean([s['speaker_accuracy'] for s in scores]):.3f}" if speaker else "-"
    return [*cells, accuracy]


if __name__ == "__main__":
    main()
