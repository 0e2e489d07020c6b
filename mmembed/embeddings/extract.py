"""Extraction from its settings to the shards and what is said of them."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import torch

from mmembed.data.shards.layout import finish, index_shards, shard_sidecars
from mmembed.embeddings.dry_run import check_writable, dry_run, show_plan
from mmembed.embeddings.extraction import Extraction, part_of
from mmembed.embeddings.formats import write_formats
from mmembed.embeddings.output import open_output
from mmembed.embeddings.plan import Plan
from mmembed.errors import BudgetError, UsageError
from mmembed.io.atomic import sweep_temporaries
from mmembed.io.json import write_lines
from mmembed.io.leases import Leases
from mmembed.io.locks import finishing
from mmembed.io.progress import progress
from mmembed.io.ranks import find_rank
from mmembed.settings.extract import Extract
from mmembed.training.distributed import follow_parent, local_device

NAMED: Final = 100  # inputs passed over that manifest.json names
SHOWN: Final = 5  # failures of each folder that are printed

LEASES: Final = ".leases"  # folder of what each taker is making
POLL: Final = 1.0  # seconds between looks at what others are making


def extract(settings: Extract) -> None:
    """Open everything, make the shards that are missing, report.

    Raises:
        BudgetError: too many clips failed.
        UsageError: settings contradict each other or what is there.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        follow_parent()
        if "-" in settings.inputs:
            raise UsageError("-: processes of torchrun share one stdin; give a manifest instead")
    on_ray = settings.ray is not None
    device = torch.device("cpu") if on_ray else local_device()  # nothing is embedded here
    with (
        open_output(settings.out) as output,
        Extraction.open(settings, device, output) as opened,
    ):
        plan = opened.plan
        part = _part(settings, plan)
        output.look(plan, part.numbers)
        plan.make_again(part.numbers, settings.retry_failed)
        if settings.plan:
            show_plan(plan, output.shown, settings.json)
        elif settings.dry_run:
            _dry_run(opened)
        else:
            _make(opened, part)
            _finish_if_complete(opened, part)


def _make(opened: Extraction, part: _Part) -> None:
    """Make the shards of this process that are missing."""
    missing, clips = opened.begin(part.name, part.numbers), opened.plan.clips
    total = sum(len(clips(number)) for number in part.numbers)
    done = total - sum(len(clips(number)) for number in missing)
    with progress("extract", total, start=done, show=part.shows) as update:
        make = partial(opened.make, on_progress=lambda count: update(done + count))
        if opened.settings.ray is not None:
            from mmembed.embeddings.on_ray import make_on_ray  # needs the extra `ray`

            make_on_ray(opened.settings, opened.plan, missing, lambda count: update(done + count))
        elif opened.settings.take:
            _take(opened.plan, opened.settings.out, make)
        else:
            make(missing)
        update(total)


def _finish_if_complete(opened: Extraction, part: _Part) -> None:
    opened.output.refresh(opened.plan)
    with finishing(opened.output.folder) if opened.plan.complete else nullcontext(False) as ours:
        if ours:
            _finish(opened)
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
        return _Part(part_of("shards"), [number], f"shard {number} is made; others are not")
    if settings.take:
        return _Part(part_of("takers"), plan.numbers)
    if settings.ray is not None:
        return _Part(part_of("shards"), plan.numbers)
    rank, who = find_rank(settings.rank, settings.world, os.environ)
    if who and rank.world > 1:
        print(f"rank {rank.rank} of {rank.world} ({who})", file=sys.stderr, flush=True)
    own = plan.numbers[rank.rank :: rank.world]
    return _Part(rank.name, own, rank.waiting, rank.rank == 0)


def _dry_run(opened: Extraction) -> None:
    """Say what the run would do, and end as it would."""
    settings, plan = opened.settings, opened.plan
    opened.check()
    for folder in plan.folders:
        check_writable(folder)
    total = len(plan.sources)
    with progress("look", total) as update:
        probed = opened.decoder.probe(plan.sources)
        run = dry_run(plan, probed, opened.content, settings.format, update)
        update(total)
    for error in run.failures[:SHOWN]:
        print(f"would fail ({error.reason}): {error}", file=sys.stderr)
    print("\n".join(run.lines), flush=True)
    if changed := sum(len(plan.changed(number)) for number in plan.numbers):
        print(f"inputs changed: {changed:,} of the shards done are made again", flush=True)
    if opened.output.is_local:
        run.check_space()
    _check_budget(settings, plan, len(run.failures), "would fail")


def _finish(opened: Extraction) -> None:
    """Gather what failed, index the shards, write other formats, say what came out."""
    settings, plan = opened.settings, opened.plan
    passed_over = [asdict(replace(check, items=check.items[:NAMED])) for check in opened.skipped]
    remarks = {"remarks": passed_over} if passed_over else {}
    failures = 0
    for folder, streams in plan.folders.items():
        sweep_temporaries(folder)
        listed = [f for p in shard_sidecars(folder) for f in p["provenance"]["failed"]]
        write_lines(folder / "failed.jsonl", listed)
        finish(folder, **opened.provenance(streams), **remarks)
        index_shards(folder)
        write_formats(folder, settings.format)
        failures += len(listed)
        for failure in listed[:SHOWN]:
            print(f"failed ({failure['reason']}): {failure['message']}", file=sys.stderr)
    done = len(plan.sources) * len(plan.folders) - failures
    opened.output.publish()
    name = opened.output.name
    print(f"{done} embeddings in {name}, {failures} failed", flush=True)
    _check_budget(settings, plan, failures, f"failed: see failed.jsonl in {name}")


def _check_budget(settings: Extract, plan: Plan, failures: int, what: str) -> None:
    total = len(plan.sources) * len(plan.folders)
    if failures > settings.error_budget * total:
        verb, _, where = what.partition(":")
        raise BudgetError(
            f"{failures} of {total} {verb}, more than --error-budget {settings.error_budget}"
            f"{where and ':'}{where}"
        )
