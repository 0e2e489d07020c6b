"""How fast one process reads shuffled utterances from indexed shards, and from plain webdataset.

    python benchmarks/shard_reading.py --utterances 4000

Makes shards of random utterances as `prepare` does, 10 s of float16 log-mel (1000 x 80) and their
json, in a temporary folder; just written, they are in memory. One process reads all of them in a
shuffled order with `ShardSet.read`, and once without comparing checksums. The peers read the same
tars by `webdataset.WebDataset` as its users do, shuffled in a buffer of 1,000 samples, in turn with
ours: once with webdataset's own decoding, once with `np.load` and `json.loads` alone, and once as
bytes in the order of the file; webdataset compares no checksums. Prints utterances a second by the
clock (median of the rounds) and by the time of the processor, which other programs disturb less,
and the stages of a read.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import tyro
import webdataset
from numpy.typing import NDArray

from mmembed.data.example import Example, ExampleInfo
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.format import decode
from mmembed.data.shards.layout import Record, ShardSet, index_shards, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.io.cache import Descriptor
from mmembed.io.checksum import crc32

PER_SHARD = 250
BUFFER = 1_000


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        utterances: to make and read; 164 kB each.
        rounds: of each kind of reading.
        seed: of contents and order.
    """

    utterances: int = 4_000
    rounds: int = 5
    seed: int = 0


def main() -> None:
    """A table of utterances a second."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, settings)
        shards = ShardSet(folder)
        order = np.random.default_rng(settings.seed).permutation(len(shards)).tolist()
        load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
        print(f"{len(shards)} utterances in {-(-len(shards) // PER_SHARD)} shards, load {load}")
        print(f"checksums by {crc32.__module__ or 'zlib'}")
        readers: dict[str, Callable[[], Iterable[object]]] = {
            "indexed": lambda: map(shards.read, order),
            "indexed, checksums not compared": lambda: map(partial(unchecked, shards), order),
            "webdataset, shuffled, its decode": lambda: (
                shuffled(folder, settings.seed).decode().to_tuple("audio.npy", "json")
            ),
            "webdataset, shuffled, np.load": lambda: map(by_hand, shuffled(folder, settings.seed)),
            "webdataset, bytes in order": lambda: webdataset.WebDataset(
                tars(folder), shardshuffle=False
            ),
        }
        times: dict[str, list[tuple[float, float]]] = {label: [] for label in readers}
        for _ in range(settings.rounds):  # in turn, so that other load meets all alike
            for label, read in readers.items():
                times[label].append(measure(read))
        medians = {label: np.median(measured, axis=0) for label, measured in times.items()}
        print("| reader | utterances/s | by processor time | indexed is faster by |")
        print("|---|---|---|---|")
        for label, (clock, processor) in medians.items():
            faster = medians["indexed"] / (clock, processor)
            print(
                f"| {label} | {clock:,.0f} | {processor:,.0f} | {faster[0]:.1f}, {faster[1]:.1f} |"
            )
        stages(shards, order[:2_000])


def make(folder: Path, settings: Settings) -> None:
    """Shards as `prepare` writes them."""
    rng = np.random.default_rng(settings.seed)
    for first in range(0, settings.utterances, PER_SHARD):
        numbers = range(first, min(first + PER_SHARD, settings.utterances))
        records = [Record(*to_record(example(number, rng))) for number in numbers]
        write_shard(shard_path(folder, first // PER_SHARD), records, {})
    index_shards(folder)


def example(number: int, rng: np.random.Generator) -> Example:
    """An utterance of 10 s with all that a labelled corpus tells of one."""
    row = Utterance(
        key=f"made-up-{number:07d}",
        media=f"videos/{number:07d}.mp4",
        transcript="and then she told me that nobody had ever seen the like of it before",
        language="en",
        speaker=f"speaker-{number % 997:04d}",
        split="train",
        labels=Labels(sentiment=1.0, emotions=(1.0, 0.0, 0.0, 0.0, 0.5, 0.0)),
    )
    audio = rng.standard_normal((1000, 80), dtype=np.float32).astype(np.float16)
    return Example(row, audio=audio, text=row.transcript, info=ExampleInfo(10.0))


def measure(read: Callable[[], Iterable[object]]) -> tuple[float, float]:
    """Utterances a second by the clock, and by the time this process had."""
    clock, processor = time.perf_counter(), time.process_time()
    count = sum(1 for _ in read())
    return count / (time.perf_counter() - clock), count / (time.process_time() - processor)


def tars(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("shard-*.tar")))


def shuffled(folder: Path, seed: int) -> webdataset.WebDataset:
    paths = tars(folder)
    return webdataset.WebDataset(paths, shardshuffle=len(paths), seed=seed).shuffle(BUFFER)


def open_tar(shards: ShardSet, place: int) -> Descriptor:
    shard = shards._index.shard_of(place)
    return shards._files.open_tar(shard.name, shard.size, shard.sha256)


def unchecked(shards: ShardSet, place: int) -> dict[str, object]:
    """What `ShardSet.read` does, but for the checksums, which webdataset does not have."""
    index = shards._index
    file, read = open_tar(shards, place), {}
    for member in index.members(place):
        data = np.empty(member.size, np.uint8)
        os.preadv(file.number, [data.data], member.offset)
        read[member.name] = decode(member.name, data)
    return {"key": index.key(place), "meta": index.meta(place), **read}


def by_hand(sample: dict[str, bytes]) -> tuple[np.ndarray, object]:
    audio = np.load(io.BytesIO(sample["audio.npy"]), allow_pickle=False)
    return audio, json.loads(sample["json"])


def stages(shards: ShardSet, order: list[int]) -> None:
    """Processor time of each part of a read; checksum and decoding of one record over and over."""
    index = shards._index

    def timed(label: str, action: Callable[[int], object]) -> None:
        start = time.process_time()
        for i in order:
            action(i)
        print(f"| {label} | {(time.process_time() - start) / len(order) * 1e6:.1f} |")

    def fetch(i: int) -> list[tuple[str, NDArray[np.uint8]]]:
        file, read = open_tar(shards, i), []
        for member in index.members(i):
            data = np.empty(member.size, np.uint8)
            os.preadv(file.number, [data.data], member.offset)
            read.append((member.name, data))
        return read

    held = fetch(0)
    print("| stage | us of processor time an utterance |\n|---|---|")
    timed("look up", lambda i: (index.shard_of(i), index.members(i), index.key(i), index.meta(i)))
    timed("look up members and read them", fetch)
    timed("checksum", lambda _: [crc32(data.data) for _, data in held])
    timed("decode", lambda _: [decode(name, data) for name, data in held])


if __name__ == "__main__":
    main()
