"""Turn a corpus into shards of features, ready for training.

Examples:
    mmembed prepare ravdess ~/corpora/ravdess --out data/ravdess
    mmembed prepare clips ~/clips --out data/clips

OUT/manifest.jsonl gets one line for every utterance, and OUT/shards their features. Utterances that
cannot be read are listed in OUT/shards/failed.jsonl and left out. The same command again makes only
what is missing. `mmembed prepare CORPUS --help` explains the options of a corpus.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import tyro

from mmembed.config import TIMEOUT
from mmembed.data import checks as integrity
from mmembed.data.corpora import CONVERTERS, CORPORA
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError, UsageError, meant
from mmembed.io.locks import lock_folder
from mmembed.io.progress import progress
from mmembed.io.ranks import Rank, find_rank

if TYPE_CHECKING:
    from mmembed.data.manifest.jsonl import ManifestRow
    from mmembed.data.shards.layout import ShardSet
    from mmembed.features.video import CropForm

Stream = Literal["audio", "video", "text"]

SHOWN_FAILURES: Final = 5


@dataclass(frozen=True)
class Shards:
    """Where the shards go and how they are made.

    Attributes:
        out: Folder for everything that is written.
        streams: Streams to keep.
        workers: Decoding processes.
        records_per_shard: Utterances in one shard.
        error_budget: Fraction of utterances that may fail before the command fails.
        timeout: Seconds after which a clip fails.
        crop: Height and width of the face crops in pixels. Our own encoder reads 64; pretrained
            picture encoders read any size, and see most where it is theirs, often 224.
        colour: Keep the face crops in colour, as pretrained picture encoders know faces; our own
            encoder reads grey.
        face_model: YuNet's ONNX file to find faces with; by default OpenCV's Haar cascade finds
            them.
        rank: Number of this process among `world` processes, from 0. By default as the environment
            of torchrun, SLURM, Open MPI, Kubernetes or AWS Batch says.
        world: Number of processes or machines that share the work.
    """

    out: Path
    streams: tuple[Stream, ...] = ("audio", "video", "text")
    workers: int = 2
    records_per_shard: int = 256
    error_budget: float = 0.01
    timeout: float = TIMEOUT
    crop: int = 64
    colour: bool = False
    face_model: Path | None = None
    rank: int | None = None
    world: int | None = None

    @cached_property
    def part(self) -> Rank:
        """The work of this process."""
        part, who = find_rank(self.rank, self.world, os.environ)
        if who:
            print(f"rank {part.rank} of {part.world} ({who})", file=sys.stderr)
        return part

    @property
    def crops(self) -> CropForm:
        """What face crops are to look like."""
        from mmembed.features.video import CropForm

        return CropForm(self.crop, self.colour)

    def hold(self) -> None:
        """Keep others from doing the same work in the same folder."""
        lock_folder(self.out, self.part.name)


Settings = tyro.conf.OmitArgPrefixes[Shards]

Convert = Callable[[Path, Path], list[Utterance]]
"""(source, out) -> rows whose media paths are absolute or start at `out`."""


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare one corpus, then say what came out."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        _print_help()
        raise SystemExit(0)
    if name == "text":
        raise UsageError("prepare text is now a part of `mmembed prepare table`: use that")
    if name not in _known():
        found = repr(name) if name else "nothing"
        raise UsageError(
            f"prepare: name a corpus first, one of {', '.join(_known())}; found {found}"
            f"{meant(name or '', _known())}"
        )
    command: Callable[..., None]
    if name in OWN:
        command = OWN[name]
    elif name in CORPORA:
        command = _corpus_command(name, CORPORA[name], _reader(CORPORA[name]))
    else:
        command = _corpus_command(name, CONVERTERS[name], CONVERTERS[name], alone=True)
    tyro.cli(command, prog=f"mmembed prepare {name}", args=arguments[1:])


def _known() -> dict[str, str]:
    """Corpus -> what it is, in a line."""
    commands: Mapping[str, Callable[..., object]] = {**OWN, **CORPORA, **CONVERTERS}
    return {name: (read.__doc__ or "").partition("\n")[0] for name, read in commands.items()}


def _print_help() -> None:
    print(f"usage: mmembed prepare CORPUS [SOURCE] --out DIR [OPTION ...]\n\n{__doc__}\ncorpora:")
    for name, summary in _known().items():
        print(f"  {name:17} {summary}")


def talkers(
    shards: Settings, seed: int = 0, speakers: int = 30, clips_per_speaker: int = 48
) -> None:
    """Make synthetic clips of talking faces: the corpus of the demo.

    mmembed prepare talkers --out data/talkers

    Args:
        shards: Where and how.
        seed: Seed of all random choices.
        speakers: Number of speakers.
        clips_per_speaker: Clips of each speaker.
    """
    from mmembed.data.corpora.talkers import generate
    from mmembed.data.manifest.jsonl import read_manifest

    if shards.part.world > 1:
        raise UsageError("talkers are made by one process: leave out --rank and --world")
    shards.hold()
    size = {"seed": seed, "speakers": speakers, "clips_per_speaker": clips_per_speaker}
    with progress("make clips", speakers * clips_per_speaker) as update:
        path = generate(
            shards.out, **size, workers=shards.workers, on_progress=lambda done, _: update(done)
        )
    _prepare(shards, read_manifest(path), path.parent)


def manifest(source: tyro.conf.Positional[Path], shards: Settings) -> None:
    """Read any corpus that has a manifest, JSON lines or Parquet: one row for each utterance.

    mmembed prepare manifest ~/clips/manifest.jsonl --out data/clips

    Args:
        source: The manifest. Paths of its media are relative to its folder.
        shards: Where and how.
    """
    from mmembed.data.manifest.jsonl import each_row

    shards.hold()
    _prepare(shards, list(each_row(source)), source.parent)


OWN: Final[Mapping[str, Callable[..., None]]] = {"talkers": talkers, "manifest": manifest}


def _reader(read: Callable[[Path], Iterable[Utterance]]) -> Convert:
    """A reader whose rows find their media wherever the manifest stands."""

    def rows(source: Path, _out: Path) -> list[Utterance]:
        folder = source.parent if source.is_file() else source
        return [
            row
            if row.media is None or "://" in row.media
            else replace(row, media=str((folder / row.media).absolute()))
            for row in read(source)
        ]

    return rows


def _corpus_command(
    name: str, reader: Callable[..., object], convert: Convert, *, alone: bool = False
) -> Callable[[Path, Shards], None]:
    def command(
        source: Annotated[
            tyro.conf.Positional[Path],
            tyro.conf.arg(help="Its folder as published, or the file of a table."),
        ],
        shards: Settings,
    ) -> None:
        if alone and shards.part.world > 1:
            raise UsageError("this form is converted by one process: leave out --rank and --world")
        shards.hold()
        if alone:
            integrity.write_report(shards.out, ())  # of an earlier start
        with integrity.collect_skipped() as skipped:
            try:
                rows = convert(source, shards.out)
            except ValueError as error:  # of a row made of what no reader had thought of
                raise DataError(str(source), "corpus", str(error)) from None
        if not rows:
            raise DataError(str(source), "empty", "not one utterance of it can be used")
        checks = integrity.read_report(shards.out) if alone else []
        if checks:
            print(integrity.describe(checks), flush=True)
        if any(row.media or row.transcript for row in rows):
            _prepare(shards, rows, shards.out, rows, [*checks, *skipped])
        else:
            path = shards.out / "manifest.jsonl"
            from mmembed.data.manifest.jsonl import write_manifest

            write_manifest(path, rows)
            print(f"{len(rows)} rows of labels alone, nothing to make shards of: {path}")

    summary = (reader.__doc__ or "").partition("\n")[0]
    example = f"mmembed prepare {name} ~/corpora/{name} --out data/{name}"
    command.__doc__ = f"{summary}\n\n    example:\n        {example}\n"
    return command


def _prepare(
    shards: Shards,
    rows: Sequence[ManifestRow],
    folder: Path,
    written: Sequence[Utterance] | None = None,
    report: Sequence[integrity.Check] = (),
) -> None:
    """Make the shards of `rows`; `written` is the manifest to be written, where there is none, and
    `report` what its reader found.
    """
    from mmembed.data.manifest.jsonl import write_manifest
    from mmembed.data.prepare import plan_shards, prepare_shards
    from mmembed.data.shards.layout import ShardSet

    out = shards.out / "shards"
    jobs = plan_shards(
        rows,
        folder,
        out,
        shards.streams,
        shards.records_per_shard,
        shards.face_model,
        shards.crops,
    )
    if written is not None and shards.part.rank == 0:  # a refused command leaves all as it was
        write_manifest(shards.out / "manifest.jsonl", written)
        integrity.write_report(shards.out, report)
    own = sum(len(job.utterances) for job in jobs[shards.part.rank :: shards.part.world])
    with progress("prepare", own, show=own > 0) as update:
        failures = prepare_shards(
            rows,
            folder,
            out,
            streams=shards.streams,
            workers=shards.workers,
            records_per_shard=shards.records_per_shard,
            on_progress=update,
            error_budget=shards.error_budget,
            timeout=shards.timeout,
            face_model=shards.face_model,
            crops=shards.crops,
            part=shards.part,
        )
        update(own)
    if failures is None:
        print(shards.part.waiting, flush=True)
        return
    for failure in failures[:SHOWN_FAILURES]:
        print(f"failed ({failure['reason']}): {failure['message']}", file=sys.stderr)
    print(f"{describe(ShardSet(out))}, {len(failures)} failed: {out}", flush=True)


def describe(shards: ShardSet) -> str:
    """What shards of features hold, such as "4 utterances (3 train, 1 dev), 0.01 h, 2 speakers"."""
    from mmembed.features.audio import SAMPLE_RATE
    from mmembed.features.video import VIDEO_RATE

    metas = [shards.meta(index) for index in range(len(shards))]
    lengths = [meta["lengths"] for meta in metas]
    seconds = sum(max(n["audio"] / SAMPLE_RATE, n["video"] / VIDEO_RATE) for n in lengths)
    speakers = {meta["speaker"] for meta in metas} - {None}
    splits = Counter(meta["split"] or "without split" for meta in metas)
    parts = ", ".join(f"{count} {name}" for name, count in splits.items())
    length = f", {seconds / 3600:.2f} h" if seconds else ""  # text and others' features have none
    return f"{len(metas)} utterances ({parts}){length}, {len(speakers)} speakers"
