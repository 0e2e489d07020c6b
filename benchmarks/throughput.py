"""Seconds of clip a second: each stage of extraction, the encoder beside its limits, wav2vec2.

    python benchmarks/throughput.py CLIPS --encoder ENCODER [--recipe base]

CLIPS is a folder of media files, whose lengths should be mixed. All figures are of the same clips,
cores and run. Three tables:

- stages of audio-visual extraction in one process, then decoding and cropping in one, two and as
  many processes as cores, as `mmembed extract` has them, alone and while the encoder computes; then
  the encoder for one and for all subsets of two streams; the best times;
- the encoder on features: one clip at a time (a plain loop), batches as they come, batches of like
  length, all cores in each product or a batch for each core (as `mmembed extract` has it),
  bfloat16, on request compiled, each with its share of the rate at which this machine multiplies
  large matrices (matrix products, convolutions and attention are counted), medians;
- sound alone, from samples to vectors, beside wav2vec2-base (Baevski et al. 2020, arXiv 2006.11477)
  of transformers with random weights, which serve for speed, the best times.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmembed.batch import Encoding
from mmembed.data.example import Example
from mmembed.data.folders import MEDIA_SUFFIXES
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import DecodedMedia, load_clip
from mmembed.data.media.pool import Decoder
from mmembed.data.shards.layout import Record, write_shard
from mmembed.embedder import Embedder
from mmembed.embeddings.write import Content
from mmembed.encoder import Encoder
from mmembed.features.audio import SAMPLE_RATE, to_int16
from mmembed.features.video import face_crops
from mmembed.nn.transformer import Block
from mmembed.settings.pretrain import RECIPES
from mmembed.streams import stream_subsets

T = TypeVar("T")
AT_ONCE = 8  # clips in a batch
MATRIX = 2048  # rows and columns of the products that measure the ceiling
PRODUCTS = 8  # at a time


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        clips: folder of media files.
        encoder: folder of an encoder.
        recipe: measure an encoder of this pre-training recipe, with random weights, instead.
        most: clips read, in the order of their names; 0 = all.
        encoded: clips in the second table, over and over.
        repeats: of each measurement.
        compiled: also compile the encoder, which takes minutes and a C++ compiler.
        wav2vec2: measure it, which needs transformers.
    """

    clips: tyro.conf.Positional[Path]
    encoder: Path
    recipe: str | None = None
    most: int = 200
    encoded: int = 64
    repeats: int = 5
    compiled: bool = False
    wav2vec2: bool = True


def best(repeats: int, work: Callable[[], object]) -> float:
    """Seconds by the clock of the quickest of some runs, after one that warms up."""
    work()
    taken = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return min(taken)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Parts of up to `size`, taken as they come."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def threads() -> ThreadPoolExecutor:
    """As many as torch has, that compute with one each, as in `mmembed extract`."""
    return ThreadPoolExecutor(torch.get_num_threads(), "embed", torch.set_num_threads, (1,))


def precision(half: bool) -> AbstractContextManager[object]:
    """Bfloat16 or float32."""
    return torch.autocast("cpu", torch.bfloat16) if half else nullcontext()


class Ceiling:
    """Operations a second in products of large square matrices.

    The speed of a machine drifts, so what is compared with it is measured in turn with it.
    """

    def __init__(self, half: bool) -> None:
        self._factor = torch.randn(MATRIX, MATRIX, dtype=torch.bfloat16 if half else torch.float32)
        self.rates: list[float] = []

    def __call__(self) -> float:
        begun = time.perf_counter()
        for _ in range(PRODUCTS):
            _ = self._factor @ self._factor
        self.rates.append(2 * MATRIX**3 * PRODUCTS / (time.perf_counter() - begun))
        return self.rates[-1]

    def beside(
        self, repeats: int, operations: int, work: Callable[[], object]
    ) -> tuple[float, float]:
        """Seconds that some work takes, and its share of this rate: medians."""
        work()
        taken, shares = [], []
        for _ in range(repeats):
            before = self()
            begun = time.perf_counter()
            work()
            taken.append(time.perf_counter() - begun)
            shares.append(operations / taken[-1] / ((before + self()) / 2))
        return statistics.median(taken), statistics.median(shares)


def row(name: str, seconds: float, of: float, note: str = "") -> None:
    """One line: seconds of clip for each second taken."""
    print(f"{name:<44} {of / seconds:>9.1f}  {note}", flush=True)


def as_example(number: int, clip: DecodedMedia, crops: NDArray[np.uint8] | None) -> Example:
    sound = None if clip.audio is None else to_int16(clip.audio)
    return Example(Utterance(f"clip-{number}", None), audio=sound, video=crops)


def stages(
    settings: Settings, files: Sequence[Path], embedder: Embedder
) -> tuple[list[DecodedMedia], list[Example]]:
    """The first table; returns what was decoded."""
    print("\naudio-visual extraction, seconds of clip a second")
    clips: list[DecodedMedia] = []
    spent = dict.fromkeys(("decode", "crop", "encode", "write"), 0.0)

    def timed(stage: str, work: Callable[[], T]) -> T:
        begun = time.perf_counter()
        made = work()
        spent[stage] += time.perf_counter() - begun
        return made

    examples = []
    for number, path in enumerate(files):
        clip = timed("decode", partial(load_clip, path))
        film = clip.video
        crops = None if film is None else timed("crop", partial(face_crops, film))[0]
        clips.append(clip)
        examples.append(as_example(number, clip, crops))
    length = sum(clip.seconds for clip in clips)
    records = []
    for part in batched(examples, AT_ONCE):
        encoding = timed("encode", partial(embedder.encode, part))
        for place, example in enumerate(part):
            vectors = {
                "pooled.npy": encoding.pooled[place].numpy(),
                "layers.npy": encoding.layers[place].numpy(),
            }
            records.append(Record(example.key, vectors, {}))
    with tempfile.TemporaryDirectory() as folder:
        timed("write", lambda: write_shard(Path(folder) / "shard-000000.tar", records, {}))
    for stage, seconds in spent.items():
        share = seconds / sum(spent.values())
        row(f"{stage}, one process", seconds, length, f"{100 * share:.0f} % of the time")
    row("all stages, one process", sum(spent.values()), length)

    sources = open_sources(files)

    def embed(decoder: Decoder) -> None:
        with threads() as workers:
            loaded = (x for x in decoder.load(sources) if isinstance(x, Example))
            list(workers.map(embedder.encode, batched(loaded, AT_ONCE)))

    one: list[float] = []
    for count in sorted({1, 2, len(os.sched_getaffinity(0))}):
        with Decoder(count) as decoder:
            decode = partial(lambda by: deque(by.load(sources), 0), decoder)
            taken = [best(settings.repeats, work) for work in (decode, partial(embed, decoder))]
        one = one or taken
        gains = [
            f"{before / now:.2f} of one process" for before, now in zip(one, taken, strict=True)
        ]
        row(f"decode and crop in {count} processes", taken[0], length, gains[0])
        row("    the encoder meanwhile", taken[1], length, gains[1])
    content, parts = Content(embedder), [*batched(examples, AT_ONCE)]
    every = stream_subsets(("audio", "video"))

    def extract(subsets: Sequence[tuple[str, ...]]) -> None:
        for part in parts:
            content.embed(part, subsets, embedder.pack(part))

    alone, all_of = (best(settings.repeats, partial(extract, s)) for s in (every[-1:], every))
    row("encoder, audio+video", alone, length)
    row(
        f"encoder, all {len(every)} subsets of these", all_of, length, f"{all_of / alone:.2f} times"
    )
    return clips, examples


def encoder(settings: Settings, examples: Sequence[Example], embedder: Embedder) -> None:
    """The second table, for sound alone and for all that clips have."""
    limits = {half: Ceiling(half) for half in (False, True)}
    for streams in (("audio",), ("audio", "video")):
        held = [example.only(streams) for example in examples]
        held = [example for example in held if example.streams == streams]
        if not held:
            continue
        held = [*islice(cycle(held), settings.encoded)]
        length = sum(
            len(example.audio) / SAMPLE_RATE for example in held if example.audio is not None
        )
        alike = sorted(held, key=lambda e: 0 if e.audio is None else len(e.audio))
        ways = {
            "one clip at a time": [[example] for example in held],
            f"{AT_ONCE} as they come": [*batched(held, AT_ONCE)],
            f"{AT_ONCE} of like length": [*batched(alike, AT_ONCE)],
        }
        print(f"\nencoder on features of {'+'.join(streams)}, seconds of clip a second")

        def encode(half: bool, part: Sequence[Example]) -> Encoding:
            with precision(half):
                return embedder.encode(part)

        with FlopCounterMode(display=False) as counted:
            for part in ways[f"{AT_ONCE} as they come"]:
                encode(False, part)
        operations = counted.get_total_flops()

        def measure(
            name: str,
            parts: Sequence[Sequence[Example]],
            half: bool = False,
            length: float = length,
            operations: int = operations,
        ) -> None:
            def told(name: str, run: Callable[[], object]) -> None:
                taken, share = limits[half].beside(settings.repeats, operations, run)
                row(name, taken, length, f"{100 * share:.0f} % of the ceiling")

            work = partial(encode, half)
            told(name, lambda: list(map(work, parts)))
            with threads() as workers:
                told("    a batch for each core", lambda: list(workers.map(work, parts)))

        for name, parts in ways.items():
            measure(name, parts)
        for name, parts in ways.items():
            measure(f"{name}, bfloat16", parts, True)
        if settings.compiled:
            for block in embedder.encoder.modules():
                if isinstance(block, Block):
                    block.compile(dynamic=True)
            measure(f"{AT_ONCE} as they come, compiled", ways[f"{AT_ONCE} as they come"])
    for half, limit in limits.items():
        rate = statistics.median(limit.rates) / 1e9
        print(f"{'ceiling, bfloat16' if half else 'ceiling, float32':<44} {rate:>9.1f}  GFLOP/s")


def sound_alone(settings: Settings, clips: Sequence[DecodedMedia], embedder: Embedder) -> None:
    """The third table."""
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    sounds = sorted((clip.audio for clip in clips if clip.audio is not None), key=len)
    length = sum(map(len, sounds)) / SAMPLE_RATE
    torch.manual_seed(0)
    other = Wav2Vec2Model(Wav2Vec2Config())
    other.train(False)

    @torch.no_grad()
    def wav2vec2(at_once: int) -> None:
        for part in batched(sounds, at_once):
            longest = max(map(len, part))
            padded = torch.stack([
                torch.nn.functional.pad(torch.from_numpy(one), (0, longest - len(one)))
                for one in part
            ])  # fmt: skip
            states: Tensor = other(padded)[0]
            states.mean(1)

    def ours() -> None:
        for part in batched(sounds, AT_ONCE):
            embedder.encode(
                [as_example(n, DecodedMedia(one, None, 0.0), None) for n, one in enumerate(part)]
            )

    print("\nsound alone, from samples to vectors, seconds of clip a second")
    for half in (False, True):
        name = "bfloat16" if half else "float32"
        with precision(half):
            rates = {at_once: best(1, partial(wav2vec2, at_once)) for at_once in (1, 4)}
            mine = best(settings.repeats, ours)
        for at_once, taken in rates.items():
            row(f"wav2vec2-base, {at_once} at once, {name}", taken, length)
        fold = min(rates.values()) / mine
        row(f"ours, {name}", mine, length, f"{fold:.1f} times the better of these")


def main() -> None:
    """Three tables."""
    settings = tyro.cli(Settings, description=__doc__)
    found = sorted(p for p in settings.clips.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES)
    files = found[: settings.most or None]
    embedder = Embedder.from_pretrained(settings.encoder)
    if settings.recipe is not None:
        torch.manual_seed(0)
        sizes = RECIPES[settings.recipe]().method.encoder
        assert embedder.subwords is not None
        embedder.encoder = Encoder(replace(sizes, vocabulary_size=len(embedder.subwords)))
        embedder.encoder.train(False).requires_grad_(False)
    cores = len(os.sched_getaffinity(0))
    print(f"{len(files)} clips, {cores} cores, {torch.get_num_threads()} threads of torch")
    clips, examples = stages(settings, files, embedder)
    encoder(settings, examples, embedder)
    if settings.wav2vec2:
        sound_alone(settings, clips, embedder)


if __name__ == "__main__":
    main()
