"""From a list of utterances to shards of features.

The order of the utterances and the records per shard decide which shard holds what, so shards can
be made by any number of processes, and the same call again makes only those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

import cv2
import torch

from mmembed.batch import STREAMS
from mmembed.data.atomic import atomic_file
from mmembed.data.example import Example, Utterance
from mmembed.data.examples import load_example, to_record
from mmembed.data.manifest import to_row
from mmembed.data.shards import (
    Record,
    finish,
    index_shards,
    is_committed,
    shard_path,
    shard_sidecars,
    write_shard,
)
from mmembed.errors import BudgetError, DataError, MmembedError, UsageError

Failure = dict[str, str]

_MADE_WITH: Final = ("mmembed", "numpy", "torch", "torchaudio", "av", "opencv-python-headless")


@dataclass(frozen=True)
class Prepared:
    """What became of the utterances.

    Attributes:
        records: how many are in the shards.
        failures: {"key", "reason", "message"} of those that are not.
    """

    records: int
    failures: tuple[Failure, ...]


def prepare_shards(
    utterances: Sequence[Utterance],
    folder: Path,
    out: Path,
    *,
    streams: tuple[str, ...] = STREAMS,
    workers: int = 2,
    records_per_shard: int = 256,
    on_progress: Callable[[int], None] | None = None,
    error_budget: float = 0.01,
) -> Prepared:
    """Turn utterances into shards and a manifest.json; what failed is listed in failed.jsonl.

    Args:
        utterances: in the order the shards shall have.
        folder: where relative media paths start.
        out: folder for the shards; may hold some of them already.
        streams: those to keep.
        workers: processes; 0 = this one.
        records_per_shard: utterances planned for one shard, failures included.
        on_progress: called with the number of utterances done so far.
        error_budget: share of the utterances that may fail, in [0, 1].

    Raises:
        UsageError: `out` holds shards of other utterances or streams.
        DataError: there are no utterances, or two share a key.
        BudgetError: more failed than `error_budget` allows; the shards are there all the same.
    """
    _check_utterances(utterances, folder)
    jobs = [
        _Job(tuple(utterances[first : first + records_per_shard]), folder, path, streams)
        for first in range(0, len(utterances), records_per_shard)
        for path in [shard_path(out, first // records_per_shard)]
    ]
    _check_folder(out, jobs)
    missing = [job for job in jobs if not is_committed(job.path)]
    done = len(utterances) - sum(len(job.utterances) for job in missing)
    for count in _run(missing, workers):
        done += count
        if on_progress is not None:
            on_progress(done)
    sidecars = shard_sidecars(out)
    failures = tuple(failure for index in sidecars for failure in index["provenance"]["failed"])
    with atomic_file(out / "failed.jsonl") as file:
        file.writelines(json.dumps(failure).encode() + b"\n" for failure in failures)
    finish(
        out,
        streams=list(streams),
        utterances=len(utterances),
        records_per_shard=records_per_shard,
        plan=_digest([job.plan for job in jobs]),
    )
    index_shards(out)
    if len(failures) > error_budget * len(utterances):
        raise BudgetError(
            f"{len(failures)} of {len(utterances)} utterances failed, more than the error budget "
            f"of {error_budget:.1%}: see {out / 'failed.jsonl'}"
        )
    return Prepared(sum(index["count"] for index in sidecars), failures)


@dataclass(frozen=True)
class _Job:
    """One shard to make."""

    utterances: tuple[Utterance, ...]
    folder: Path
    path: Path
    streams: tuple[str, ...]

    @property
    def plan(self) -> str:
        """A digest of what this shard is to hold."""
        return _digest([list(self.streams), *map(to_row, self.utterances)])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _check_utterances(utterances: Sequence[Utterance], folder: Path) -> None:
    if not utterances:
        raise DataError(str(folder), "empty", "no utterances to prepare")
    seen: set[str] = set()
    for utterance in utterances:
        if utterance.key in seen:
            raise DataError(utterance.key, "duplicate", "two utterances have this key")
        seen.add(utterance.key)


def _check_folder(out: Path, jobs: Sequence[_Job]) -> None:
    """Shards that are there already must be those of this plan."""
    plans = {job.path: job.plan for job in jobs}
    for sidecar in sorted(out.glob("shard-*.json")):
        path = sidecar.with_suffix(".tar")
        if path in plans and not is_committed(path):
            continue  # damaged: it is made again
        if path not in plans or _plan_of(sidecar) != plans[path]:
            raise UsageError(
                f"{path}: holds other utterances or streams than asked for; "
                "choose another folder, or remove this one to start again"
            )


def _plan_of(sidecar: Path) -> object:
    return json.loads(sidecar.read_bytes())["provenance"].get("plan")


def _run(jobs: Sequence[_Job], workers: int) -> Iterator[int]:
    """Make shards; yields the utterances done with each."""
    if workers == 0 or not jobs:
        yield from map(_make_shard, jobs)
        return
    with ProcessPoolExecutor(
        min(workers, len(jobs)), multiprocessing.get_context("spawn"), _start_worker
    ) as pool:
        try:
            yield from pool.map(_make_shard, jobs)
        except BrokenProcessPool:
            raise MmembedError(
                "a worker process was killed, perhaps for want of memory: "
                "run the same again to continue, with fewer workers"
            ) from None


def _start_worker() -> None:
    """One core for one worker, which ends at once with Ctrl-C and with the main process."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _make_shard(job: _Job) -> int:
    failed: list[Failure] = []
    provenance = {
        "plan": job.plan,
        "streams": list(job.streams),
        "made_with": {name: version(name) for name in _MADE_WITH},
        "failed": failed,  # grows while the records are made; the index is written after them
    }
    write_shard(job.path, _records(job, failed), provenance)
    return len(job.utterances)


def _records(job: _Job, failed: list[Failure]) -> Iterable[Record]:
    for utterance in job.utterances:
        try:
            yield Record(*to_record(_load(utterance, job)))
        except DataError as error:
            failed.append({"key": utterance.key, "reason": error.reason, "message": str(error)})


def _load(utterance: Utterance, job: _Job) -> Example:
    example = load_example(utterance, job.folder, job.streams)
    if not example.streams:
        raise DataError(utterance.key, "no_streams", f"has none of {', '.join(job.streams)}")
    return example
