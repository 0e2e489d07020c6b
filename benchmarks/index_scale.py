"""What opening a large corpus costs: time and memory, with the folder's index and without.

    python benchmarks/index_scale.py --records 1000000 --shards 2000

Fakes a folder of shards: sidecars as `write_shard` writes them and tars that are files of the right
size without content (sparse). Then, each in a process of its own: the index is written; the folder
is opened by its sidecars; it is opened by its index, a record is looked up, the lengths and splits
of all records are read, and 10,000 records are looked up in a random order. Prints seconds and the
most memory that the process held beyond what it held with everything imported; pages of the mapped
index count, though all processes share them.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import tyro

from mmembed.data.shards.format import sealed, to_json
from mmembed.data.shards.layout import ShardSet, index_shards, shard_path

TAR_SIZE = 82_000_000 // 10_240 * 10_240
STEP = 163_840  # bytes of a record in the tar


@dataclass(frozen=True)
class Settings:
    """How large the corpus is.

    Attributes:
        records: in all.
        shards: that hold them, as many each.
        sidecars: also open the folder without its index, which holds all of it in memory.
    """

    records: int = 1_000_000
    shards: int = 2_000
    sidecars: bool = True


def main() -> None:
    """A table of seconds and memory."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run(fake, folder, settings.records // settings.shards, settings.shards)
        sizes = [path.stat().st_size for path in folder.glob("shard-*.json")]
        print(f"{settings.records} records, {settings.shards} shards", end=", ")
        print(f"sidecars {sum(sizes) / 1e6:,.0f} MB", flush=True)
        print("| step | seconds | MB |\n|---|---|---|")
        if settings.sidecars:
            run(open_folder, folder, "open by the sidecars")
        run(write_index, folder)
        print(f"| index.arrow | | {(folder / 'index.arrow').stat().st_size / 1e6:,.0f} on disk |")
        run(use_index, folder)


def run(step: Callable[..., None], *arguments: object) -> None:
    """In a process of its own, so that its memory is its own."""
    process = multiprocessing.get_context("spawn").Process(target=step, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == 0


def fake(folder: Path, count: int, shards: int) -> None:
    """Sidecars as if `prepare` had made them."""
    rng = np.random.default_rng(0)
    for number in range(shards):
        lengths = rng.integers(32_000, 320_000, count).tolist()
        checksums = rng.integers(0, 2**32, (count, 2)).tolist()
        records = [
            {
                "key": f"made-up-{number:05d}-{row:05d}",
                "members": {
                    "audio.flac": [STEP * row + 1536, length // 2, checksums[row][0]],
                    "json": [STEP * row + 512, 376, checksums[row][1]],
                },
                "meta": {
                    "features": {},
                    "lengths": {"audio": length, "text": length // 1600, "video": 0},
                    "speaker": f"speaker-{(number * count + row) % 9973:05d}",
                    "split": "dev" if row % 50 == 0 else "train",
                    "transcript": "and then she told me that nobody had seen it before"[
                        : length // 1600
                    ],
                },
            }
            for row, length in enumerate(lengths)
        ]
        tar = shard_path(folder, number)
        with tar.open("wb") as file:
            file.truncate(TAR_SIZE)
        content = {
            "bytes": TAR_SIZE,
            "count": count,
            "provenance": {},
            "records": records,
            "sha256": hashlib.sha256(str(number).encode()).hexdigest(),
        }
        tar.with_suffix(".json").write_bytes(sealed(to_json(content)))


class Steps:
    """Prints the seconds since the last step, and the most memory so far."""

    def __init__(self) -> None:
        self._held = _peak()
        self._last = time.perf_counter()

    def done(self, label: str) -> None:
        seconds = time.perf_counter() - self._last
        print(f"| {label} | {seconds:.2f} | {_peak() - self._held:,.0f} |", flush=True)
        self._last = time.perf_counter()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def open_folder(folder: Path, label: str) -> None:
    steps = Steps()
    shards = ShardSet(folder)
    steps.done(label)
    assert len(shards)


def write_index(folder: Path) -> None:
    steps = Steps()
    index_shards(folder)
    steps.done("write the index")


def use_index(folder: Path) -> None:
    steps = Steps()
    shards = ShardSet(folder)
    steps.done("open by the index")
    shards.meta(len(shards) // 2)
    steps.done("look up one record")
    lengths = shards.numbers("lengths.audio")
    train = pc.equal(shards.texts("split"), "train").to_numpy()
    steps.done(f"lengths and splits of all ({int(lengths[train].sum()) / 5.76e7:,.0f} h of train)")
    for place in np.random.default_rng(0).integers(0, len(shards), 10_000).tolist():
        json.dumps([shards.key(place), shards.meta(place)])
    steps.done("look up 10,000 records")


if __name__ == "__main__":
    main()
