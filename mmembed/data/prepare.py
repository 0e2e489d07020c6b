"""From a list of utterances to shards of features.

The order of the utterances and the records per shard decide which shard holds what, so shards can
be made by any number of processes, and the same call again makes only those that are missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

from mmembed import features
from mmembed.config import TIMEOUT, Seconds
from mmembed.data.example import Example
from mmembed.data.fingerprints import Fingerprints, drop_if_changed, with_media
from mmembed.data.manifest.jsonl import ManifestRow, row_name
from mmembed.data.manifest.utterance import Utterance, to_row
from mmembed.data.media.load import MediaSource
from mmembed.data.media.pool import Decoder
from mmembed.data.shards.layout import (
    Record,
    finish,
    index_shards,
    is_committed,
    shard_path,
    shard_sidecar,
    shard_writer,
)
from mmembed.data.shards.records import to_record
from mmembed.errors import BudgetError, DataError, UsageError
from mmembed.features.video import SMALL_GREY, CropForm, check_face_model
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.io.locks import finishing
from mmembed.io.ranks import Rank
from mmembed.io.versions import made_with
from mmembed.streams import STREAMS

Failure = dict[str, str]
"""The "key" of an utterance that is in no shard, "reason" and "message"."""


WHOLE: Final = Rank()


def prepare_shards(
    utterances: Sequence[ManifestRow],
    folder: Path,
    out: Path,
    *,
    streams: tuple[str, ...] = STREAMS,
    workers: int = 2,
    records_per_shard: int = 256,
    on_progress: Callable[[int], None] = lambda done: None,
    error_budget: float = 0.01,
    timeout: Seconds = TIMEOUT,
    face_model: Path | None = None,
    crops: CropForm = SMALL_GREY,
    part: Rank = WHOLE,
) -> tuple[Failure, ...] | None:
    """Turn utterances into shards and a manifest.json; what failed is listed in failed.jsonl.

    Shards that are there are kept, but for those of which an input was replaced: these are made
    again (see `mmembed.data.fingerprints`).

    Args:
        utterances: in the order the shards shall have; an error is a row that cannot be used, and
            fails with what it says.
        folder: where relative media paths start.
        out: folder for the shards; may hold some of them already.
        streams: those to keep.
        workers: processes that decode.
        records_per_shard: utterances planned for one shard, failures included.
        on_progress: called with the number of utterances done so far.
        error_budget: fraction of the utterances that may fail, in [0, 1].
        timeout: seconds after which a clip is given up.
        face_model: see `mmembed.features.video.face_crops`.
        crops: form of the face crops.
        part: which shards are this process's. Whichever part ends last writes manifest.json.

    Returns:
        Those that failed, once all is there, manifest.json too; None while other parts are at work.

    Raises:
        UsageError: `out` holds shards of other utterances, streams, crops or features.
        DataError: there are no utterances, or two share a key.
        BudgetError: more failed than `error_budget` allows; the shards are there all the same.
    """
    jobs = plan_shards(utterances, folder, out, streams, records_per_shard, face_model, crops)
    own = jobs[part.rank :: part.world]
    for job in own:
        drop_if_changed(job.path, with_media(job.sources))
    missing = [job for job in own if not is_committed(job.path)]
    done = sum(len(job.utterances) for job in own) - sum(len(job.utterances) for job in missing)
    prints = {job.path: Fingerprints() for job in missing}

    def sources() -> Iterator[MediaSource]:
        """Those of a shard are looked at before the first of them is given out."""
        for job in missing:
            prints[job.path].take(with_media(job.sources))
            yield from job.sources

    with Decoder(workers, seconds=timeout) as decoder:
        # One sequence over all shards: no process waits for the last clip of a shard.
        loaded = decoder.load(sources())
        for job in missing:
            examples = (x if isinstance(x, DataError) else next(loaded) for x in job.utterances)
            _make_shard(job, examples, prints[job.path], done, on_progress)
            done += len(job.utterances)
    return _finish(jobs, out, records_per_shard, error_budget)


def plan_shards(
    utterances: Sequence[ManifestRow],
    folder: Path,
    out: Path,
    streams: tuple[str, ...],
    records_per_shard: int,
    face_model: Path | None = None,
    crops: CropForm = SMALL_GREY,
) -> list[ShardJob]:
    """What each shard is to hold; raises as `prepare_shards` does, before anything is written."""
    _check_utterances(utterances, folder)
    how = f"{_code()} {crops}"
    if face_model is not None:
        check_face_model(face_model)
        how += hashlib.sha256(face_model.read_bytes()).hexdigest()
    jobs = [
        ShardJob(
            tuple(utterances[first : first + records_per_shard]),
            shard_path(out, first // records_per_shard),
            streams,
            how,
            folder,
            face_model,
            crops,
        )
        for first in range(0, len(utterances), records_per_shard)
    ]
    _check_folder(out, jobs)
    return jobs


def _finish(
    jobs: Sequence[ShardJob], out: Path, records_per_shard: int, error_budget: float
) -> tuple[Failure, ...] | None:
    """Gather what failed and write manifest.json, once all shards are there."""
    total = sum(len(job.utterances) for job in jobs)
    sidecars = [index for job in jobs if (index := shard_sidecar(job.path)) is not None]
    failures = tuple(failure for index in sidecars for failure in index["provenance"]["failed"])
    complete = len(sidecars) == len(jobs)
    with finishing(out) if complete else nullcontext(False) as ours:
        if ours:
            with atomic_file(out / "failed.jsonl") as file:
                file.writelines(dumps(failure).encode() + b"\n" for failure in failures)
            finish(
                out,
                streams=list(jobs[0].streams),
                crops=asdict(jobs[0].crops),
                utterances=total,
                records_per_shard=records_per_shard,
                plan=_digest([job.plan for job in jobs]),
            )
            index_shards(out)
    if ours and len(failures) > error_budget * total:
        raise BudgetError(
            f"{len(failures)} of {total} utterances failed, more than the error budget "
            f"of {error_budget:.1%}: see {out / 'failed.jsonl'}, which begins with "
            f"{failures[0]['message'][:200]}"
        )
    return failures if ours else None


@dataclass(frozen=True)
class ShardJob:
    """One shard to make."""

    utterances: tuple[ManifestRow, ...]
    path: Path
    streams: tuple[str, ...]
    how: str
    folder: Path
    face_model: Path | None
    crops: CropForm

    @property
    def sources(self) -> list[MediaSource]:
        """The rows to decode, with their media in `folder`."""
        rows = (row for row in self.utterances if isinstance(row, Utterance))
        how: dict[str, Any] = {"face_model": self.face_model, "crops": self.crops}
        return [MediaSource(row, self.folder, self.streams, **how) for row in rows]

    @cached_property
    def plan(self) -> str:
        """A digest of what this shard is to hold."""
        rows = (
            {"wrong": row.message} if isinstance(row, DataError) else to_row(row)
            for row in self.utterances
        )
        return _digest([self.how, list(self.streams), *rows])


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@cache
def _code() -> str:
    """A digest of the code that decodes and computes features: other code, other vectors."""
    folder = Path(__file__).parent
    names = ("audio", "decode", "load", "open", "repair", "streaming", "video")
    files = [folder / "media" / f"{name}.py" for name in names]
    files += sorted(Path(features.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _check_utterances(utterances: Sequence[ManifestRow], folder: Path) -> None:
    if not utterances:
        raise DataError(str(folder), "empty", "no utterances to prepare")
    seen: dict[str, str | None] = {}
    for row in utterances:
        if isinstance(row, Utterance):
            if row.key in seen:
                files = " and ".join(name for name in (seen[row.key], row.media) if name)
                remedy = f": {files}; remove or rename one" if files else ""
                raise DataError(row.key, "duplicate", f"two utterances have this key{remedy}")
            seen[row.key] = row.media


def _check_folder(out: Path, jobs: Sequence[ShardJob]) -> None:
    """Shards that are there already must be those of this plan."""
    plans = {job.path: job.plan for job in jobs}
    for sidecar in sorted(out.glob("shard-*.json")):
        path = sidecar.with_suffix(".tar")
        if path in plans:
            made = shard_sidecar(path)
            if made is None or made["provenance"].get("plan") == plans[path]:
                continue  # a damaged one is made again
        raise UsageError(
            f"{path}: holds other utterances, streams or crops than asked for, or features of "
            "another version; choose another folder, or remove this one to start again"
        )


def _make_shard(
    job: ShardJob,
    examples: Iterable[Example | DataError],
    prints: Fingerprints,
    done: int,
    on_progress: Callable[[int], None],
) -> None:
    failed: list[Failure] = []
    provenance = {
        "plan": job.plan,
        "streams": list(job.streams),
        "crops": asdict(job.crops),
        "made_with": made_with(),
        # Both grow while the records are made; the index is written after them.
        "fingerprints": prints.digests,
        "failed": failed,
    }
    with shard_writer(job.path, provenance) as put:
        rows = zip(job.utterances, examples, strict=True)
        for count, (utterance, example) in enumerate(rows, start=done + 1):
            if isinstance(example, Example):
                put(Record(*to_record(example)))
            else:
                failure = {"reason": example.reason, "message": str(example)}
                failed.append({"key": row_name(utterance), **failure})
            on_progress(count)
    prints.keep(job.path)
