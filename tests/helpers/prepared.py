"""Prepared folders and embeddings as the programs leave them, made of made-up examples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.commands.cli import run_program
from mmembed.commands.verify import main
from mmembed.data.example import Example, ExampleInfo
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, finish, shard_path, write_shard
from mmembed.data.shards.records import to_record

WORDS = ("good morning", "so it goes", "come back soon", "no")


def example(number: int, **changes: Any) -> Example:
    """0.5 s of sound, 12 pictures and some words, different for each number."""
    known: dict[str, Any] = {
        "key": f"clip-{number}",
        "media": f"{number}.mp4",
        "transcript": WORDS[number % len(WORDS)],
        "speaker": f"s{number % 2}",
        "split": "train",
        "language": "en",
        "labels": Labels(sentiment=float(number % 4)),
    }
    for field in fields(Utterance):
        if field.name in changes:
            known[field.name] = changes.pop(field.name)
    utterance = Utterance(**known)
    draw = np.random.default_rng(number)
    held: dict[str, Any] = {
        "audio": (3_000 * draw.standard_normal(8_000)).astype(np.int16),
        "video": draw.integers(0, 256, (12, 64, 64), np.uint8),
        "text": utterance.transcript,
        "info": ExampleInfo(0.5, "haar"),
    }
    return Example(utterance, **{**held, **changes})


def write_prepared(
    out: Path, examples: Sequence[Example], failed: Sequence[dict[str, str]] = (), size: int = 2
) -> Path:
    """OUT/manifest.jsonl and OUT/shards, as `mmembed prepare` writes them; failures in shard 0."""
    lost = [Utterance(failure["key"], f"{failure['key']}.mp4") for failure in failed]
    write_manifest(out / "manifest.jsonl", [*lost, *(example.utterance for example in examples)])
    records = [Record(*to_record(example)) for example in examples]
    parts = [records[: size - len(lost)]]
    parts += [records[i : i + size] for i in range(size - len(lost), len(records), size)]
    for number, part in enumerate(parts):
        here = list(failed) if number == 0 else []
        write_shard(shard_path(out / "shards", number), part, {"failed": here})
    lines = "".join(json.dumps(failure) + "\n" for failure in failed)
    (out / "shards" / "failed.jsonl").write_text(lines)
    finish(
        out / "shards",
        streams=["audio", "video", "text"],
        utterances=len(records) + len(lost),
        records_per_shard=size,
    )
    return out


def embedding(number: int, **changes: Any) -> Record:
    """As `mmembed extract --granularity utterance frame` writes one."""
    draw = np.random.default_rng(number)
    members = {
        "pooled.npy": draw.standard_normal(8).astype(np.float32),
        "layers.npy": draw.standard_normal((3, 8)).astype(np.float32),
        "frames.npy": draw.standard_normal((5 + number, 4)).astype(np.float16),
        "json": {
            "speaker": f"s{number}", "split": "test", "language": None,
            "labels": {"category": "sad"}, "streams": ["audio"],
            "notes": {"seconds": 2.0}, "frame_rate": 25,
        },
    }  # fmt: skip
    meta = {"frames": 5 + number, "split": "test", "speaker": f"s{number}"}
    return Record(f"clip-{number}", {**members, **changes}, meta)


def described(number: int, **changes: object) -> Record:
    """`embedding(number)`, the JSON of which says something else."""
    record = embedding(number)
    members = {**record.members, "json": {**record.members["json"], **changes}}
    return Record(record.key, members, {**record.meta, "split": members["json"]["split"]})


def write_embeddings(folder: Path, records: Sequence[Record], streams: Sequence[str]) -> Path:
    write_shard(shard_path(folder, 0), records, {"failed": []})
    (folder / "failed.jsonl").write_text("")
    layers, clips = ["audio 0", "audio 1", "fused"], len(records)
    finish(
        folder, encoder_sha256="0123456789abcdef", streams=list(streams), layers=layers,
        frame_rate=25, clips=clips, records_per_shard=512,
    )  # fmt: skip
    return folder


def change_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit a JSON file in place; an index loses its seal, as a forger would see to."""
    held = json.loads(path.read_bytes())
    held.pop("sidecar_sha256", None)
    change(held)
    path.write_text(json.dumps(held))


def seal(tar: Path) -> None:
    """Make the index of a changed tar agree with its size and checksum."""
    data = tar.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    change_json(tar.with_suffix(".json"), lambda i: i.update(bytes=len(data), sha256=digest))


def verify(*arguments: object) -> int:
    """The exit code of `mmembed verify`."""
    return run_program(main, [str(argument) for argument in arguments])


def reasons(printed: str) -> list[str]:
    """The first word of each defect that it told."""
    return [line.split(":")[0].strip() for line in printed.splitlines() if line[:2] == "  "]
