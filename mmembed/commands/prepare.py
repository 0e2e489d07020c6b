"""Turn a corpus into shards of features, ready for training.

OUT/manifest.jsonl gets a line for every utterance and OUT/shards their features; what cannot be
read is listed in OUT/shards/failed.jsonl and left out. The same command again makes only what is
missing.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import tyro

from mmembed.commands.progress import progress
from mmembed.data.atomic import hold_folder
from mmembed.data.corpora import CORPORA
from mmembed.data.example import Utterance
from mmembed.data.manifest import read_manifest, write_manifest
from mmembed.data.prepare import prepare_shards
from mmembed.data.shards import ShardSet
from mmembed.features.audio import FEATURE_RATE
from mmembed.features.video import VIDEO_RATE

Stream = Literal["audio", "video", "text"]

SHOWN_FAILURES: Final = 5


@dataclass(frozen=True)
class Shards:
    """Where the shards go and how they are made.

    Attributes:
        out: folder for everything that is written.
        streams: to keep of each utterance.
        workers: processes.
        records_per_shard: utterances in one shard.
        error_budget: share of utterances that may fail before the command does.
    """

    out: Path
    streams: tuple[Stream, ...] = ("audio", "video", "text")
    workers: int = 2
    records_per_shard: int = 256
    error_budget: float = 0.01


Settings = tyro.conf.OmitArgPrefixes[Shards]


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare one corpus, then say what came out."""
    verbs: dict[str, Callable[..., None]] = {"talkers": talkers, "manifest": manifest}
    verbs |= {name: _corpus_command(name, read) for name, read in CORPORA.items()}
    tyro.extras.subcommand_cli_from_dict(
        verbs, prog="mmembed prepare", description=__doc__, args=argv
    )


def talkers(
    shards: Settings, seed: int = 0, speakers: int = 30, clips_per_speaker: int = 48
) -> None:
    """Make clips of talking faces, with nothing to download: the corpus of the demo.

    Args:
        shards: where and how.
        seed: of everything drawn by chance.
        speakers: how many.
        clips_per_speaker: of each.
    """
    from mmembed.data.corpora.talkers import generate

    hold_folder(shards.out)
    size = {"seed": seed, "speakers": speakers, "clips_per_speaker": clips_per_speaker}
    with progress("make clips", speakers * clips_per_speaker) as update:
        path = generate(
            shards.out, **size, workers=shards.workers, on_progress=lambda done, _: update(done)
        )
    _prepare(shards, read_manifest(path), path.parent)


def manifest(source: tyro.conf.Positional[Path], shards: Settings) -> None:
    """Read any corpus that has a manifest, JSON lines or Parquet: one row an utterance.

    Args:
        source: the manifest; its media paths start at its folder.
        shards: where and how.
    """
    hold_folder(shards.out)
    _prepare(shards, read_manifest(source), source.parent)


def _corpus_command(
    name: str, read: Callable[[Path], Iterable[Utterance]]
) -> Callable[[Path, Shards], None]:
    def command(
        source: Annotated[
            tyro.conf.Positional[Path], tyro.conf.arg(help="folder of the corpus as published.")
        ],
        shards: Settings,
    ) -> None:
        hold_folder(shards.out)
        rows = [
            replace(row, media=row.media and str((source / row.media).absolute()))
            for row in read(source)
        ]
        write_manifest(shards.out / "manifest.jsonl", rows)
        _prepare(shards, rows, shards.out)

    command.__doc__ = (read.__doc__ or name).splitlines()[0]
    return command


def _prepare(shards: Shards, rows: Sequence[Utterance], folder: Path) -> None:
    how = {name: value for name, value in asdict(shards).items() if name != "out"}
    out = shards.out / "shards"
    with progress("prepare", len(rows)) as update:
        prepared = prepare_shards(rows, folder, out, on_progress=update, **how)
        update(len(rows))
    for failure in prepared.failures[:SHOWN_FAILURES]:
        print(f"failed ({failure['reason']}): {failure['message']}", file=sys.stderr)
    print(f"{describe(ShardSet(out))}, {len(prepared.failures)} failed: {out}", flush=True)


def describe(shards: ShardSet) -> str:
    """What shards of features hold, such as "4 utterances (3 train, 1 dev), 0.01 h, 2 speakers"."""
    metas = [shards.meta(index) for index in range(len(shards))]
    hours = sum(map(_seconds, metas)) / 3600
    speakers = {meta["speaker"] for meta in metas} - {None}
    splits = Counter(meta["split"] or "without split" for meta in metas)
    parts = ", ".join(f"{count} {name}" for name, count in splits.items())
    return f"{len(metas)} utterances ({parts}), {hours:.2f} h, {len(speakers)} speakers"


def _seconds(meta: Mapping[str, Any]) -> float:
    lengths = meta["lengths"]
    seconds: float = max(lengths["audio"] / FEATURE_RATE, lengths["video"] / VIDEO_RATE)
    return seconds
