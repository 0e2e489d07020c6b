"""A dry run: what there is to do, what it would take, and what would fail. Nothing is decoded."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmembed.data.media.load import ProbeResult
from mmembed.data.shards.layout import shard_path
from mmembed.embeddings.plan import Plan
from mmembed.embeddings.write import Content
from mmembed.errors import DataError, UsageError
from mmembed.io.json import dumps
from mmembed.io.locks import is_locked
from mmembed.settings.extract import Format
from mmembed.streams import STREAMS, subset_name


@dataclass
class DryRun:
    """What a run would do.

    Attributes:
        plan: what there is to do.
        streams: "audio+video", ... or "not opened" -> clips.
        seconds: of all clips whose length is known.
        unknown: clips whose length is not.
        failures: of all folders, in their order.
        size: bytes that will be written.
    """

    plan: Plan
    streams: Counter[str]
    seconds: float
    unknown: int
    failures: list[DataError]
    size: int

    @property
    def lines(self) -> Iterator[str]:
        """For a terminal."""
        clips, folders = len(self.plan.sources), len(self.plan.folders)
        about = f"{self.seconds / 3600:.2f} hours"
        about += f" and {self.unknown} of unknown length" if self.unknown else ""
        yield f"clips: {clips:,}, {about}"
        found = (f"{count:,} {name}" for name, count in sorted(self.streams.items()))
        yield f"streams: {', '.join(found) or 'none'}"
        total = len(self.plan.numbers) * folders
        missing = sum(len(self.plan.missing(number)) for number in self.plan.numbers)
        yield f"shards: {total - missing:,} done, {missing:,} to make, in {folders} folders"
        free = self._free / 1e6
        yield f"disk: about {self.size / 1e6:,.1f} MB to write, {free:,.1f} MB free"
        counts = Counter(error.reason for error in self.failures)
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
        yield f"would fail: {reasons or 'none'}"

    @property
    def _free(self) -> int:
        return shutil.disk_usage(_existing(next(iter(self.plan.folders)))).free

    def check_space(self) -> None:
        """Raises OSError: the disk is too small."""
        if self.size > self._free:
            out = str(next(iter(self.plan.folders)))
            raise OSError(errno.ENOSPC, f"about {self.size:,} bytes will not fit", out)


def dry_run(
    plan: Plan,
    probes: Iterable[ProbeResult | DataError],
    content: Content,
    formats: Sequence[Format],
    update: Callable[[float], None],
) -> DryRun:
    """Add up what is known of every clip.

    Args:
        plan: what there is to do.
        probes: of each clip, see `mmembed.data.media.pool.Decoder.probe`.
        content: what is stored of each.
        formats: that are written.
        update: called with the number of clips done.
    """
    run = DryRun(plan, Counter(), 0.0, 0, [], 0)
    copies = 1 + len(set(formats) - {"webdataset"})
    missing = {shard: plan.missing(shard) for shard in plan.numbers}
    for number, (source, probe) in enumerate(zip(plan.sources, probes, strict=True)):
        update(number)
        if isinstance(probe, DataError):
            run.failures += [probe] * len(plan.folders)
            continue
        has, seconds = probe.streams, probe.seconds
        if has is None:
            run.streams["not opened"] += 1
            has = STREAMS
        else:
            run.streams[subset_name(has) if has else "none"] += 1
        if seconds is not None:
            run.seconds += seconds
        elif {"audio", "video"} & set(has):
            run.unknown += 1
        for folder, subset in plan.folders.items():
            if not set(has) & set(subset):
                message = f"has none of {', '.join(subset)}"
                run.failures.append(DataError(source.name, "no_streams", message))
            elif folder in missing[number // plan.records_per_shard]:
                has_frames = {"audio", "video"} & set(has) & set(subset)
                run.size += copies * _size(content, probe.text, seconds if has_frames else None)
    return run


def _size(content: Content, text: str | None, seconds: float | None) -> int:
    """Bytes of a clip; with text alone its frames are its tokens."""
    transcript = text or ""
    if seconds is None:
        return content.size(len(content.embedder.tokens(transcript)), 0)
    frames = round(seconds * content.embedder.encoder.frame_rate)
    return content.size(frames, len(transcript.split()))


def check_writable(folder: Path) -> None:
    """See whether a folder can be claimed, without writing to it.

    Raises:
        UsageError: another program is at work there.
        OSError: it may not be written to.
    """
    if is_locked(folder):
        raise UsageError(f"{folder}: another program is writing there; wait for its end or stop it")
    there = _existing(folder)
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    there = folder.absolute()
    while not there.exists():
        there = there.parent
    return there


def show_plan(plan: Plan, shown: Callable[[Path], str], as_json: bool) -> None:
    """Print what there is to do, shard by shard.

    Args:
        plan: what there is to do.
        shown: what users call a folder.
        as_json: for programs.
    """
    rows: list[dict[str, Any]] = []
    for number in plan.numbers:
        missing = {shown(folder) for folder in plan.missing(number)}
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
