"""Extraction from its settings to the shards and what is said of them."""

from __future__ import annotations

import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, NamedTuple

from mmembed.config import read_json
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
from mmembed.data.shards.layout import finish, index_shards, shard_path, shard_sidecars
from mmembed.embedder import Embedder
from mmembed.embeddings.dry_run import check_writable, dry_run
from mmembed.embeddings.formats import write_formats
from mmembed.embeddings.plan import Plan, Subset
from mmembed.embeddings.write import Content, Threads, make_shards
from mmembed.errors import BudgetError, UsageError
from mmembed.io.atomic import sweep_temporaries
from mmembed.io.json import dumps, write_lines
from mmembed.io.leases import Leases
from mmembed.io.locks import finishing
from mmembed.io.progress import progress
from mmembed.io.ranks import find_rank
from mmembed.settings.extract import Extract
from mmembed.streams import STREAMS, parse_subset, stream_subsets, subset_name
from mmembed.training.distributed import follow_parent, local_device
from mmembed.training.run_folder import is_run_folder, open_run_folder

NAMED: Final = 100  # inputs passed over that manifest.json names
SHOWN: Final = 5  # failures of each folder that are printed

LEASES: Final = ".leases"  # folder of what each taker is making
POLL: Final = 1.0  # seconds between looks at what others are making

# What may change from one start to the next: it names the same bytes in other ways, or decides only
# which clips fail.
MUTABLE_FIELDS: Final = ("command", "encoder", "inputs", "timeout")


def extract(settings: Extract) -> None:
    """Open everything, make the shards that are missing, report.

    Raises:
        BudgetError: too many clips failed.
        UsageError: settings contradict each other or what is there.
    """
    _check(settings)
    if "TORCHELASTIC_RUN_ID" in os.environ:
        follow_parent()
        if "-" in settings.inputs:
            raise UsageError("-: processes of torchrun share one stdin; give a manifest instead")
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
    folders = _folders(settings, embedder.encoder.reads)
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
    part = _part(settings, plan)
    own = part.numbers
    if settings.retry_failed:
        plan.make_again(own, settings.retry_failed)
    if settings.plan:
        _show(plan, settings.json)
        return
    if settings.dry_run:
        _dry_run(settings, plan, content, provenance)
        return
    for folder, streams in plan.folders.items():
        open_run_folder(folder, _config(folder, provenance(streams)), MUTABLE_FIELDS, part.name)
    plan.drop_changed(own)
    total = sum(len(plan.clips(number)) for number in own)
    missing = [number for number in own if plan.missing(number)]
    done = total - sum(len(plan.clips(number)) for number in missing)
    shown = progress("extract", total, start=done, show=part.shows)
    decoding = Decoder(embedder.workers, seconds=settings.timeout)
    with shown as update, decoding as decoder, Threads.of(embedder.device) as threads:
        make = partial(
            make_shards,
            plan,
            load=decoder.load,
            content=content,
            provenance=provenance,
            frames=settings.batch_frames,
            threads=threads,
            on_progress=lambda count: update(done + count),
        )
        if settings.take:
            _take(plan, settings.out, make)
        else:
            make(missing)
        update(total)
    with finishing(settings.out) if plan.complete else nullcontext(False) as ours:
        if ours:
            _finish(settings, plan, provenance, skipped)
        else:
            print(part.waiting, flush=True)


def _take(plan: Plan, out: Path, make: Callable[..., None]) -> None:
    """Make what no other one is making, until all is there.

    A process that was stopped may go on with what others have taken over: it writes the same bytes.
    """

    def claimed(leases: Leases) -> Iterator[int]:
        missing = [number for number in plan.numbers if plan.missing(number)]
        start = secrets.randbelow(len(missing)) if missing else 0
        for number in missing[start:] + missing[:start]:  # few begin at the same one
            if leases.take(str(number)):
                if plan.missing(number):
                    yield number
                else:  # made since
                    leases.release(str(number))

    with Leases(out / LEASES) as leases:
        while not plan.complete:
            make(claimed(leases), on_commit=lambda number: leases.release(str(number)))
            if not plan.complete:
                time.sleep(POLL)  # for what others are making, or have left


def _show(plan: Plan, as_json: bool) -> None:
    """What there is to do, shard by shard."""
    rows: list[dict[str, Any]] = []
    for number in plan.numbers:
        missing = {str(folder) for folder in plan.missing(number)}
        tars = [shard_path(folder, number) for folder in plan.folders]
        row: dict[str, Any] = {
            "shard": number,
            "clips": len(plan.clips(number)),
            "done": not missing,
            "missing": sorted(missing),
            "bytes": sum(tar.stat().st_size for tar in tars if tar.is_file()),
        }
        rows.append(row)
    if as_json:
        print(dumps({"clips": len(plan.sources), "shards": rows}, indent=1), flush=True)
        return
    print(f"{'shard':>6} {'clips':>6} {'bytes':>14}  missing in")
    for row in rows:
        print(
            f"{row['shard']:>6} {row['clips']:>6} {row['bytes']:>14,}  {', '.join(row['missing'])}"
        )
    done = sum(bool(row["done"]) for row in rows)
    print(f"{done} of {len(rows)} shards are done", flush=True)


def _check(settings: Extract) -> None:
    """Raises UsageError where settings contradict each other."""
    if not settings.inputs:
        raise UsageError("nothing to extract; name clips, folders, manifests or shards")
    for name in ("records_per_shard", "batch_frames", "workers"):
        if (value := getattr(settings, name)) is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')}: at least 1")
    if settings.recogniser is not None and "word" not in settings.granularity:
        raise UsageError("--recogniser: it finds words; add word to --granularity")
    ways = {
        "--shard": settings.shard is not None,
        "--take": settings.take,
        "--rank": settings.rank is not None or settings.world is not None,
    }
    if len(chosen := [name for name, given in ways.items() if given]) > 1:
        raise UsageError(f"{' and '.join(chosen)}: one way to share the work at a time")
    if settings.json and not settings.plan:
        raise UsageError("--json goes with --plan")


class _Part(NamedTuple):
    """What of the work is this process's.

    Attributes:
        name: under which it shares the folders.
        numbers: of the shards that are its own.
        waiting: what it says when it ends while others have work left.
        shows: whether it shows how far it is.
    """

    name: str
    numbers: Sequence[int]
    waiting: str = ""
    shows: bool = True


def _part(settings: Extract, plan: Plan) -> _Part:
    if (number := settings.shard) is not None:
        if number not in plan.numbers:
            last = len(plan.numbers) - 1
            raise UsageError(f"--shard {number}: there are shards 0 to {last}")
        return _Part(f"{number}-of-shards", [number], f"shard {number} is made; others are not")
    if settings.take:
        return _Part(f"{secrets.token_hex(4)}-of-takers", plan.numbers)
    rank, who = find_rank(settings.rank, settings.world, os.environ)
    if who and rank.world > 1:
        print(f"rank {rank.rank} of {rank.world} ({who})", file=sys.stderr, flush=True)
    own = plan.numbers[rank.rank :: rank.world]
    return _Part(rank.name, own, rank.waiting, rank.rank == 0)


def _folders(settings: Extract, reads: Subset) -> dict[Path, Subset]:
    """Output folder -> the streams used there, of those that the encoder reads."""
    if settings.streams == ("all",):
        return {settings.out: reads}
    if settings.streams == ("every",):
        subsets = stream_subsets(reads)
    else:
        try:
            subsets = [parse_subset(name) for name in settings.streams]
        except ValueError as error:
            raise UsageError(f"--streams: {error}; or all, or every") from None
    for subset in subsets:
        if not set(subset) <= set(reads):
            raise UsageError(
                f"--streams {subset_name(subset)}: the encoder reads {' and '.join(reads)} alone"
            )
    return {settings.out / subset_name(subset): subset for subset in subsets}


def _command(settings: Extract) -> str:
    """The command that makes these bytes again, anywhere: without what changes none of them."""
    words = [
        "mmembed",
        "extract",
        *map(without_secrets, settings.inputs),
        "--encoder",
        *settings.encoder,
    ]
    names = ("streams", "granularity", "recogniser", "layers", "dtype", "precision")
    kept = (*names, "records_per_shard", "batch_frames", "timeout", "max_seconds", "face_model")
    for setting in fields(settings):
        value = getattr(settings, setting.name)
        if setting.name in kept and value != setting.default:
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{setting.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


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
        "command": _command(settings),
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
