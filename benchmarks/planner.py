"""What planning costs and what it saves: padding by kind of batch, time, memory, resuming.

    python benchmarks/planner.py

Lengths are log-normal with a mean of 7 s, clipped to 2-20 s, in frames of 25 Hz. Padding is the
share of frames that a padded global batch computes for nothing. Time and memory are those of a
process of its own that plans a Parquet manifest of ten million rows, memory with all libraries.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tyro
from numpy.typing import NDArray

from mmembed.data.manifest.parquet import COLUMNS
from mmembed.data.sampler import EpochPlan, plan_epoch

RATE = 25  # frames a second
MEDIAN, SPREAD = 6.08, 0.55  # of the log-normal, seconds: a mean of 7 s when clipped
GROUP = 1_000_000  # rows written at a time


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        rows: of the manifest.
        items: of the table of paddings.
        pool: items sorted together, for time and memory.
        frames: of a batch, for time and memory.
        manifest: measure this one only, in this process.
    """

    rows: int = 10_000_000
    items: int = 1_000_000
    pool: int = 10_000
    frames: int = 24_000
    manifest: Path | None = None


def main() -> None:
    """Table, then time and memory."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.manifest:
        print(json.dumps(measure(settings.manifest, settings)))
        return
    table(settings.items)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        write(path, settings.rows)
        size = path.stat().st_size / 1e6
        print(f"\n{settings.rows:,} rows ({size:.0f} MB), {settings.frames:,} frames a batch:")
        for pool in (0, settings.pool):
            print(f"  {name_of(pool)}: {report(path, settings, pool)}", flush=True)


def report(path: Path, settings: Settings, pool: int) -> str:
    """Median of three processes."""
    command = [sys.executable, __file__, "--manifest", str(path), "--pool", str(pool)]
    command += ["--frames", str(settings.frames)]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    middle = {name: float(np.median([run[name] for run in runs])) for name in runs[0]}
    return (
        f"read lengths {middle['read']:.2f} s, plan {middle['plan']:.2f} s, "
        f"go on in the middle {middle['resume']:.2f} s (lengths as .npy, epoch 3), "
        f"peak {middle['peak']:.0f} MiB (libraries {middle['libraries']:.0f})"
    )


def measure(path: Path, settings: Settings) -> dict[str, float]:
    """Seconds and MiB of one process that plans an epoch, then of going on within another."""
    libraries = peak()
    start = time.perf_counter()
    table = pq.read_table(path, columns=["start", "end"])
    seconds = table["end"].to_numpy() - table["start"].to_numpy()
    lengths = np.rint(RATE * seconds).astype(np.int32)
    del table, seconds
    read = time.perf_counter() - start
    start = time.perf_counter()
    plan_epoch(lengths, settings.frames, seed=0, epoch=0, pool=settings.pool)
    planned = time.perf_counter() - start
    kept = path.with_suffix(".npy")
    np.save(kept, lengths)
    start = time.perf_counter()
    plan = plan_epoch(
        np.load(kept, mmap_mode="r"), settings.frames, seed=0, epoch=3, pool=settings.pool
    )
    assert len(plan[len(plan) // 2])
    resume = time.perf_counter() - start
    return {
        "read": read, "plan": planned, "resume": resume, "peak": peak(), "libraries": libraries,
    }  # fmt: skip


def peak() -> float:
    """The most memory that this process held so far, MiB."""
    status = Path("/proc/self/status").read_text()  # getrusage counts the parent in
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def table(items: int) -> None:
    """Padding of each kind of batch."""
    lengths = realistic(items)
    mean = lengths.mean() / RATE
    print(f"{items:,} items of {mean:.2f} s on average; padding, items a batch, steps")
    for frames in (2_400, 24_000):
        print(f"batches of {frames:,} frames ({frames / RATE:.0f} s)")
        for pool in (0, 1_000, 10_000, 100_000, items):
            plan = plan_epoch(lengths, frames, seed=0, epoch=0, pool=pool)
            print(
                f"  {name_of(pool):22} {padding(plan, lengths):6.1%}  "
                f"{len(plan.order) / len(plan):6.1f}  {len(plan):,}",
                flush=True,
            )


def name_of(pool: int) -> str:
    return f"sorted in {pool:,}" if pool else "random"


def realistic(items: int, seed: int = 0) -> NDArray[np.int32]:
    """Lengths in frames."""
    seconds = np.random.default_rng(seed).lognormal(np.log(MEDIAN), SPREAD, items)
    return (RATE * np.clip(seconds, 2, 20)).astype(np.int32)


def padding(plan: EpochPlan, lengths: NDArray[np.int32]) -> float:
    """The share of padding when each global batch is padded to its longest item."""
    padded = sum(len(plan[s]) * int(lengths[plan[s]].max()) for s in range(len(plan)))
    return 1 - int(lengths[plan.order].sum()) / padded


def write(path: Path, rows: int) -> None:
    """A manifest of clips, as `write_manifest` would write it, without making ten million rows."""
    schema = pa.schema(list(COLUMNS.items()))
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, rows, GROUP):
            count = min(GROUP, rows - first)
            number = pa.array(np.arange(first, first + count)).cast(pa.string())
            columns = {
                "key": pc.binary_join_element_wise("vox", number, "-"),
                "media": pc.binary_join_element_wise("clips/", number, ".mp4", ""),
                "start": pa.array(np.zeros(count)),
                "end": pa.array(realistic(count, seed=first) / RATE),
            }
            empty = {name: pa.nulls(count, kind) for name, kind in COLUMNS.items()}
            writer.write_table(pa.table(list({**empty, **columns}.values()), schema))


if __name__ == "__main__":
    main()
