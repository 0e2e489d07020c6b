"""Embed clips with a frozen encoder and write embedding shards.

Examples:
    mmembed extract clips/ --encoder runs/tiny/encoder --out embeddings
    mmembed extract "clips/**/*.mp4" --encoder runs/tiny/encoder --out embeddings --streams every
    torchrun --nproc-per-node 2 -m mmembed_export.extract corpus/shards --encoder E --out D

Inputs are media files, folders of them, wildcards in quotes, manifests (.jsonl, .parquet), folders
of prepared shards, http, https and s3 URLs of media files or of such shards, and `-`, a list on
standard input. Shards are plain webdataset tars: KEY.pooled.npy (2 D,) and KEY.layers.npy (L, 2 D),
or KEY.frames.npy (T, D), or KEY.words.npy (W, 2 D), and KEY.json (streams used, seconds, speaker,
split, labels, words).

The plan of shards depends on the inputs only, so any number of processes and machines can share the
work. The same command again makes only the missing shards. The last process to finish writes
manifest.json.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import tyro

from mmembed.commands.cli import leave, run_program
from mmembed.config import BATCH_FRAMES, MAX_SECONDS, TIMEOUT, Precision, read_json
from mmembed.data.checks import Check, collect_skipped
from mmembed.data.inputs import (
    check_keys,
    digest_of,
    expand_inputs,
    open_sources,
)
from mmembed.data.manifest.utterance import without_secrets
from mmembed.data.media.load import ReadySource, Source
from mmembed.data.media.pool import Decoder
from mmembed.data.shards.layout import finish, index_shards, shard_sidecars
from mmembed.embedder import Embedder
from mmembed.embeddings.dry_run import check_writable, dry_run
from mmembed.embeddings.formats import Format, write_formats
from mmembed.embeddings.plan import Plan, Subset
from mmembed.embeddings.write import Content, Dtype, Granularity, Threads, make_shards
from mmembed.errors import BudgetError, UsageError
from mmembed.io.atomic import sweep_temporaries
from mmembed.io.json import write_lines
from mmembed.io.locks import finishing
from mmembed.io.progress import progress
from mmembed.io.ranks import Rank
from mmembed.streams import STREAMS, parse_subset, stream_subsets, subset_name
from mmembed.training.distributed import follow_parent, local_device
from mmembed.training.run_folder import is_run_folder, open_run_folder

NAMED: Final = 100  # inputs passed over that manifest.json names
SHOWN: Final = 5  # failures of each folder that are printed

# What may change from one start to the next: it names the same bytes in other ways.
MUTABLE_FIELDS: Final = ("command", "encoder", "inputs")


@dataclass(frozen=True)
class Extract:
    """What to embed and how.

    Attributes:
        inputs: Media files, folders, wildcards in quotes, manifests, folders of prepared shards,
            URLs, or `-` for a list of these on standard input, one on each line.
        encoder: Folder of the frozen encoder, or its name on the Hugging Face hub: an encoder that
            `mmembed pretrain` made, or a public one such as "openai/whisper-base". Several public
            ones are named by stream: "audio=openai/whisper-base" "text=FOLDER".
        out: Folder for the shards. Several stream subsets get one folder each in it.
        streams: Stream subsets such as "audio+video". "all" means the streams that each clip has,
            "every" means each of the seven subsets.
        granularity: "utterance" stores one vector for each clip and layer, "frame" all frames (25 a
            second; a public encoder alone has its own rate), "word" one vector for each word of a
            known transcript: at the time that the manifest gives, else where a recogniser finds it,
            "steps" every layer at every step of a public encoder, to train on (`mmembed pretrain
            --data.audio-layers`).
        recogniser: Folder of an encoder that `mmembed pretrain` made, or its name on the Hugging
            Face hub: its recogniser finds the words, instead of that of the encoder. Public
            encoders have none.
        layers: Names of the layers to store; by default all. A wrong name lists all names.
        dtype: Type of the stored vectors.
        precision: Precision of the matrix products.
        format: Formats to write when the shards are complete, beside the webdataset shards.
        records_per_shard: Clips in one shard.
        batch_frames: Frames (25 a second) in one batch. Changes vectors only by rounding.
        error_budget: Fraction of clips that may fail before the command fails.
        timeout: Seconds after which a clip fails. For clips of more than 300 s this is the limit
            for each 12 s, with one more second for each 10 kB of the file and each 20 s decoded.
        max_seconds: Longest clip in seconds; by default four hours.
        face_model: YuNet's ONNX file, if the faces of the encoder were found with it.
        workers: Processes that decode; by default as many as processors, with a GPU one less.
            Changes no byte.
        dry_run: Check everything and write nothing: show what there is to do and what would fail.
        rank: Number of this process among `world` processes; torchrun sets both.
        world: Number of processes or machines that share the work.
    """

    inputs: tyro.conf.Positional[tuple[str, ...]]
    encoder: tuple[str, ...]
    out: Path
    streams: tuple[str, ...] = ("all",)
    granularity: tuple[Granularity, ...] = ("utterance",)
    recogniser: str | None = None
    layers: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    precision: Precision = "fp32"
    format: tuple[Format, ...] = ("webdataset",)
    records_per_shard: int = 512
    batch_frames: int = BATCH_FRAMES
    error_budget: float = 0.01
    timeout: float = TIMEOUT
    max_seconds: float = MAX_SECONDS
    face_model: Path | None = None
    workers: int | None = None
    dry_run: bool = False
    rank: int = field(default_factory=lambda: int(os.environ.get("RANK", "0")))
    world: int = field(default_factory=lambda: int(os.environ.get("WORLD_SIZE", "1")))

    def folders(self, reads: Subset) -> dict[Path, Subset]:
        """Output folder -> the streams used there, of those that the encoder reads."""
        if self.streams == ("all",):
            return {self.out: reads}
        if self.streams == ("every",):
            subsets = stream_subsets(reads)
        else:
            try:
                subsets = [parse_subset(name) for name in self.streams]
            except ValueError as error:
                raise UsageError(f"--streams: {error}; or all, or every") from None
        for subset in subsets:
            if not set(subset) <= set(reads):
                raise UsageError(
                    f"--streams {subset_name(subset)}: the encoder reads "
                    f"{' and '.join(reads)} alone"
                )
        return {self.out / subset_name(subset): subset for subset in subsets}

    @property
    def command(self) -> str:
        """The command that makes these bytes again, anywhere: without what changes none of them."""
        words = [
            "mmembed",
            "extract",
            *map(without_secrets, self.inputs),
            "--encoder",
            *self.encoder,
        ]
        names = ("streams", "granularity", "recogniser", "layers", "dtype", "precision")
        kept = (*names, "records_per_shard", "batch_frames", "timeout", "max_seconds", "face_model")
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name in kept and value != setting.default:
                values = value if isinstance(value, tuple) else () if value is True else (value,)
                words += [f"--{setting.name.replace('_', '-')}", *map(str, values)]
        return shlex.join(words)


def main(argv: Sequence[str] | None = None) -> None:
    """Open everything, make the shards that are missing, report."""
    settings = tyro.cli(Extract, prog="mmembed extract", args=argv, description=__doc__)
    if not settings.inputs:
        raise UsageError("nothing to extract; name clips, folders, manifests or shards")
    for name in ("records_per_shard", "batch_frames", "workers"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: at least 1")
    if settings.recogniser is not None and "word" not in settings.granularity:
        raise UsageError("--recogniser: it finds words; add word to --granularity")
    if "TORCHELASTIC_RUN_ID" in os.environ:
        follow_parent()
        if "-" in settings.inputs:
            raise UsageError("-: processes of torchrun share one stdin; give a manifest instead")
    part = Rank(settings.rank, settings.world)
    embedder = Embedder.from_pretrained(
        settings.encoder,
        local_device(),
        face_model=settings.face_model,
        recogniser=settings.recogniser,
        workers=settings.workers,
    )
    content = Content(
        embedder, settings.granularity, settings.layers, settings.dtype, settings.precision
    )
    folders = settings.folders(embedder.encoder.reads)
    wanted = tuple(s for s in STREAMS if any(s in held for held in folders.values()))
    inputs = expand_inputs(settings.inputs, sys.stdin)
    with collect_skipped() as skipped:
        sources = open_sources(
            inputs,
            wanted,
            settings.face_model,
            longest=settings.max_seconds,
            crops=embedder.encoder.crops,
            any_crops=embedder.encoder.any_crops,
        )
    check_keys(sources)
    if "word" in settings.granularity and embedder.listening is None:
        _check_times(sources)
    plan = Plan(sources, folders, settings.records_per_shard)
    provenance = partial(_provenance, settings, content, plan, digest_of(sources))
    if settings.dry_run:
        _dry_run(settings, plan, content, provenance)
        return
    for folder, streams in plan.folders.items():
        open_run_folder(folder, _config(folder, provenance(streams)), MUTABLE_FIELDS, part.name)
    own = plan.numbers[part.rank :: part.world]
    total = sum(len(plan.clips(number)) for number in own)
    plan.drop_changed(own)
    missing = [number for number in own if plan.missing(number)]
    done = total - sum(len(plan.clips(number)) for number in missing)
    shown = progress("extract", total, start=done, show=part.rank == 0)
    decoding = Decoder(embedder.workers, seconds=settings.timeout)
    with shown as update, decoding as decoder, Threads.of(embedder.device) as threads:
        make_shards(
            plan,
            missing,
            decoder.load,
            content,
            provenance,
            settings.batch_frames,
            threads,
            lambda count: update(done + count),
        )
        update(total)
    with finishing(settings.out) if plan.complete else nullcontext(False) as ours:
        if ours:
            _finish(settings, plan, provenance, skipped)
        else:
            print(part.waiting, flush=True)


def _check_times(sources: Sequence[Source]) -> None:
    """Refuse clips of which none has words with times; only reading shows those of shards."""
    if not any(isinstance(x, ReadySource) or x.utterance.words for x in sources):
        raise UsageError(
            "--granularity word: the encoder has no recogniser and no clip has words with times; "
            "name a folder of `mmembed pretrain` as --recogniser, or give `words` in a manifest"
        )


def _provenance(
    settings: Extract, content: Content, plan: Plan, digest: str, streams: Subset
) -> dict[str, Any]:
    """How the shards of a stream subset are made; stands in each of them. Nothing is drawn by
    chance, so there is no seed.
    """
    faces = settings.face_model
    return {
        **content.description,
        "streams": list(streams),
        "clips": len(plan.sources),
        "inputs_sha256": digest,
        "records_per_shard": settings.records_per_shard,
        "batch_frames": settings.batch_frames,
        "timeout": settings.timeout,
        "max_seconds": settings.max_seconds,
        "face_model_sha256": None if faces is None else sha256(faces.read_bytes()).hexdigest(),
        "inputs": [without_secrets(name) for name in settings.inputs],
        "encoder": " ".join(settings.encoder),
        "command": settings.command,
    }


def _config(folder: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What has to be the same until all shards of a folder are there.

    Raises:
        UsageError: a version began it that formed batches of another kind.
    """
    path = folder / "run.json"
    if path.exists() and "batch_size" in (made := read_json(path)):
        raise UsageError(
            f"{folder}: begun with --batch-size {made['batch_size']}, by a version whose batches "
            "had so many clips; finish it with that version, or choose another --out"
        )
    return {name: value for name, value in provenance.items() if name != "made_with"}


def _dry_run(settings: Extract, plan: Plan, content: Content, provenance: Any) -> None:
    """Say what the run would do, and end as it would."""
    for folder, streams in plan.folders.items():
        is_run_folder(folder, _config(folder, provenance(streams)), MUTABLE_FIELDS)
        check_writable(folder)
    total = len(plan.sources)
    decoding = Decoder(content.embedder.workers, seconds=settings.timeout)
    with progress("look", total) as update, decoding as decoder:
        run = dry_run(plan, decoder.probe(plan.sources), content, settings.format, update)
        update(total)
    for error in run.failures[:SHOWN]:
        print(f"would fail ({error.reason}): {error}", file=sys.stderr)
    print("\n".join(run.lines), flush=True)
    if changed := sum(len(plan.changed(number)) for number in plan.numbers):
        print(f"inputs changed: {changed:,} of the shards done are made again", flush=True)
    run.check_space()
    _check_budget(settings, plan, len(run.failures), "would fail")


def _finish(settings: Extract, plan: Plan, provenance: Any, skipped: Sequence[Check]) -> None:
    """Gather what failed, index the shards, write other formats, say what came out."""
    passed_over = [asdict(replace(check, items=check.items[:NAMED])) for check in skipped]
    failures = 0
    for folder, streams in plan.folders.items():
        sweep_temporaries(folder)
        listed = [f for p in shard_sidecars(folder) for f in p["provenance"]["failed"]]
        write_lines(folder / "failed.jsonl", listed)
        finish(folder, **provenance(streams), **({"remarks": passed_over} if skipped else {}))
        index_shards(folder)
        write_formats(folder, settings.format)
        failures += len(listed)
        for failure in listed[:SHOWN]:
            print(f"failed ({failure['reason']}): {failure['message']}", file=sys.stderr)
    done = len(plan.sources) * len(plan.folders) - failures
    print(f"{done} embeddings in {settings.out}, {failures} failed", flush=True)
    _check_budget(settings, plan, failures, f"failed: see failed.jsonl in {settings.out}")


def _check_budget(settings: Extract, plan: Plan, failures: int, what: str) -> None:
    total = len(plan.sources) * len(plan.folders)
    if failures > settings.error_budget * total:
        verb, _, where = what.partition(":")
        raise BudgetError(
            f"{failures} of {total} {verb}, more than --error-budget {settings.error_budget}"
            f"{where and ':'}{where}"
        )


if __name__ == "__main__":
    leave(run_program(main))
