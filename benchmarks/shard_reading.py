"""How fast one process reads shuffled utterances from indexed shards, and from plain webdataset.

    OMP_NUM_THREADS=1 python benchmarks/shard_reading.py --utterances 1000

Makes shards of random utterances as `prepare` does, 10 s of sound as 16-bit FLAC and their json, in
a temporary folder; just written, they are in memory. One process reads all of them in a shuffled
order with `ShardSet.read`, and once as the bytes alone. The peer reads the same tars by
`webdataset.WebDataset` as its users do, shuffled in a buffer of 1,000 samples, in turn with ours:
once with soundfile and `json.loads`, once as bytes in the order of the file; webdataset compares no
checksums. Prints utterances a second by the clock (median of the rounds) and by the time of the
processor, which other programs disturb less.

Then the two ways to log-mel: sound that is stored and log-mel that is computed when it is read, as
shards have it, or log-mel that is stored as float16. Prints what each costs and takes, and which
part of a training step it is: a step of one thread on the streams of a recipe, where nothing is
read ahead. Crops cost the same either way, and are not counted.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import soundfile
import torch
import tyro
import webdataset
from numpy.typing import NDArray
from scipy.signal import lfilter

from mmembed.data.dataset import Examples
from mmembed.data.example import Example, ExampleInfo
from mmembed.data.item import collate
from mmembed.data.loader import SpeechItems
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, ShardSet, index_shards, shard_path, write_shard
from mmembed.data.shards.records import SOUND, to_record
from mmembed.features.audio import SAMPLE_RATE, log_mel
from mmembed.features.text import Vocabulary
from mmembed.features.video import CROP, VIDEO_RATE
from mmembed.io.checksum import crc32
from mmembed.methods.ctc_speaker import CtcSpeaker
from mmembed.settings.pretrain import RECIPES
from mmembed.training.distributed import World
from mmembed.training.optim import build_optimizer
from mmembed.training.step import train_step

PER_SHARD = 250
BUFFER = 1_000
SECONDS = 10
MEL = "mel.npy"
ALONE = World(0, 1, torch.device("cpu"))

Reader = Callable[[], Iterable[object]]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        utterances: to make and read; 200 kB each, and as much again as log-mel.
        rounds: of each kind of reading.
        recipes: whose training steps are measured.
        batch: utterances in a step.
        seed: of contents and order.
    """

    utterances: int = 1_000
    rounds: int = 5
    recipes: tuple[str, ...] = ("tiny", "speech", "base")
    batch: int = 4
    seed: int = 0


def main() -> None:
    """Three tables."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory() as name:
        sound, mel = Path(name) / "sound", Path(name) / "mel"
        make(sound, mel, settings)
        load = ", ".join(f"{x:.2f}" for x in os.getloadavg())
        print(f"{settings.utterances} utterances of {SECONDS} s, load {load}", end=", ")
        print(f"checksums by {crc32.__module__ or 'zlib'}")
        readers(sound, settings)
        costs = ways(sound, mel, settings)
        for recipe in settings.recipes:
            step(recipe, sound, costs, settings)


def make(sound: Path, mel: Path, settings: Settings) -> None:
    """Shards as `prepare` writes them, and the same with log-mel instead of sound."""
    rng = np.random.default_rng(settings.seed)
    for first in range(0, settings.utterances, PER_SHARD):
        numbers = range(first, min(first + PER_SHARD, settings.utterances))
        records = [Record(*to_record(example(number, rng))) for number in numbers]
        write_shard(shard_path(sound, first // PER_SHARD), records, {})
        others = [replace(record, members=with_mel(record.members)) for record in records]
        write_shard(shard_path(mel, first // PER_SHARD), others, {})
    index_shards(sound)
    index_shards(mel)


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
    noise = 200 * rng.standard_normal(SECONDS * SAMPLE_RATE)
    audio = lfilter([1], [1, -0.95], noise).astype(np.int16)  # falls as the spectrum of speech
    return Example(row, audio=audio, text=row.transcript, info=ExampleInfo(float(SECONDS)))


def with_mel(members: Mapping[str, object]) -> dict[str, object]:
    sound = members[SOUND]
    assert isinstance(sound, np.ndarray)
    return {"json": members["json"], MEL: log_mel(sound).numpy().astype(np.float16)}


def readers(folder: Path, settings: Settings) -> None:
    """The first table."""
    shards = ShardSet(folder)
    order = np.random.default_rng(settings.seed).permutation(len(shards)).tolist()
    tars = sorted(map(str, folder.glob("shard-*.tar")))

    def shuffled() -> webdataset.WebDataset:
        options = {"shardshuffle": len(tars), "seed": settings.seed}
        return webdataset.WebDataset(tars, **options).shuffle(BUFFER)

    found = medians(
        {
            "indexed": lambda: map(shards.read, order),
            "webdataset, shuffled, soundfile": lambda: map(by_hand, shuffled()),
            "webdataset, bytes in order": lambda: webdataset.WebDataset(tars, shardshuffle=False),
        },
        settings.rounds,
    )
    print("| reader | utterances/s | by processor time | indexed is faster by |")
    print("|---|---|---|---|")
    for label, (clock, processor) in found.items():
        faster = (clock, processor) / found["indexed"]
        print(
            f"| {label} | {len(order) / clock:,.0f} | {len(order) / processor:,.0f} | "
            f"{faster[0]:.1f}, {faster[1]:.1f} |"
        )


def by_hand(sample: dict[str, bytes]) -> tuple[np.ndarray, object]:
    return soundfile.read(BytesIO(sample[SOUND]), dtype="int16")[0], json.loads(sample["json"])


def ways(sound: Path, mel: Path, settings: Settings) -> dict[str, float]:
    """The second table; returns the processor seconds an utterance of each way."""
    stored, computed = ShardSet(mel), ShardSet(sound)
    numbers = range(settings.utterances)

    def load_sound(number: int) -> NDArray[np.int16]:
        samples: NDArray[np.int16] = computed.read(number, [SOUND]).members[SOUND]
        return samples

    actions: dict[str, Reader] = {
        "log-mel, stored as float16": lambda: (
            torch.from_numpy(stored.read(number, [MEL]).members[MEL]).float() for number in numbers
        ),
        "sound, as FLAC": lambda: map(load_sound, numbers),
        "sound, and log-mel of it": lambda: (log_mel(load_sound(number)) for number in numbers),
    }
    sizes = [
        sum(path.stat().st_size for path in folder.glob("*.tar")) / settings.utterances
        for folder in (mel, sound, sound)
    ]
    found = medians(actions, settings.rounds)
    costs = {label: float(processor) / len(numbers) for label, (_, processor) in found.items()}
    print("\n| what is read | kB an utterance | ms of processor time an utterance |\n|---|---|---|")
    for (label, cost), size in zip(costs.items(), sizes, strict=True):
        print(f"| {label} | {size / 1e3:.0f} | {1e3 * cost:.2f} |")
    print("\n| recipe | s of a step | of it the first way | the last way | difference |")
    print("|---|---|---|---|---|")
    return costs


def step(recipe: str, folder: Path, costs: dict[str, float], settings: Settings) -> None:
    """A row of the third table."""
    run = RECIPES[recipe]()
    examples = Examples([folder])
    said = examples.transcripts()
    units = Vocabulary.train(said[:1], 30, "char")
    items = SpeechItems(examples, run.data.streams, said, units, units, {"speaker-0000": 0})
    held = [items.read(number) for number in range(settings.batch)]
    if "video" in run.data.streams:
        crops = torch.randint(0, 256, (SECONDS * VIDEO_RATE, CROP, CROP), dtype=torch.uint8)
        held = [replace(item, inputs={**item.inputs, "video": crops}) for item in held]
    batch = collate(held)
    encoder = replace(run.method.encoder, vocabulary_size=len(units))
    method = CtcSpeaker(
        replace(run.method, encoder=encoder, num_speakers=1, alphabet_size=len(units))
    )
    optimizer = build_optimizer(method, run.optim)
    taken = []
    for _ in range(settings.rounds):
        begun = time.process_time()
        train_step(method, optimizer, [batch], rate=1e-4, clip=run.optim.clip, world=ALONE)
        taken.append(time.process_time() - begun)
    seconds = float(np.median(taken))
    first, _, last = (settings.batch * cost / seconds for cost in costs.values())
    print(
        f"| {recipe}, {settings.batch * SECONDS} s | {seconds:.2f} | {first:.2%} | {last:.2%} | "
        f"{last - first:.2%} |",
        flush=True,
    )


def medians(actions: Mapping[str, Reader], rounds: int) -> dict[str, NDArray[np.float64]]:
    """Seconds by the clock and of the processor; in turn, so that other load meets all alike."""
    times: dict[str, list[tuple[float, float]]] = {label: [] for label in actions}
    for _ in range(rounds):
        for label, read in actions.items():
            clock, processor = time.perf_counter(), time.process_time()
            for _each in read():
                pass
            taken = time.perf_counter() - clock, time.process_time() - processor
            times[label].append(taken)
    return {label: np.median(taken, axis=0) for label, taken in times.items()}


if __name__ == "__main__":
    main()
