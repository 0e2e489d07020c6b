"""Whether the process that embeds keeps up with the processes that decode.

    python benchmarks/decoders.py

The processes decode nothing: each sleeps for `--seconds` and answers with the features of a clip of
4 s, sound and 64 x 64 grey crops. So their rate is known, and what is lost is lost by the process
that reads the answers, makes batches, embeds them with a very small encoder and writes shards.

- The first table has 1, 2, 4 and 8 processes: clips a second, and the share of what so many
  sleeping processes could give, for decoding alone and for all of extraction.
- The second says what a clip costs here, as time of a processor: to read and to write it (the main
  thread), to make tensors of it, to embed it; and how many seconds of clip a second this allows
  where the encoder is on a GPU.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import torch
import tyro

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media import pool
from mmembed.data.media.load import MediaSource, Source
from mmembed.data.media.pool import Decoder
from mmembed.data.media.process import limit_child
from mmembed.embedder import Embedder, save_encoder
from mmembed.embeddings.plan import Plan
from mmembed.embeddings.write import Content, Threads, make_shards
from mmembed.encoder import Encoder
from mmembed.errors import DataError
from mmembed.features.text import Vocabulary
from mmembed.settings.encoder import EncoderConfig

T = TypeVar("T")
CLIP: Final = 4  # seconds
FEATURES: Final = {
    "audio": np.random.default_rng(0).integers(-3_000, 3_000, 16_000 * CLIP, np.int16),
    "video": np.random.default_rng(0).integers(0, 255, (25 * CLIP, 64, 64), np.uint8),
}


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        seconds: that a clip takes in its process.
        clips: of each measurement in the first table, for each process.
        most: clips of the second table.
        threads: that embed.
    """

    seconds: float = 0.4
    clips: int = 20
    most: int = 500
    threads: int = 1


def serve(connection: Connection, memory: int) -> None:
    """A process that takes its time, which stands in the name of a clip."""
    limit_child(memory)
    head = {"info": {"seconds": float(CLIP), "face": "haar"}}
    with suppress(EOFError, ConnectionError):
        connection.send_bytes(b"ready")
        while True:
            request = json.loads(connection.recv_bytes())
            time.sleep(float(request["row"]["media"]))
            pool.send(connection, head, FEATURES)


def sources(count: int, seconds: float) -> list[Source]:
    return [MediaSource(Utterance(f"clip-{n}", str(seconds)), Path()) for n in range(count)]


class Run:
    """Extraction of clips by so many processes."""

    def __init__(self, embedder: Embedder, workers: int, threads: int) -> None:
        self.content, self.threads, self.decoder = Content(embedder), threads, Decoder(workers)
        list(self.decoder.load(sources(4 * workers, 0.0)))  # all have started

    def decode(self, clips: Iterable[Source]) -> Iterator[Example]:
        for found in self.decoder.load(clips):
            if isinstance(found, DataError):
                raise found
            yield found

    def extract(self, clips: list[Source]) -> None:
        with tempfile.TemporaryDirectory() as out, Threads(self.threads) as threads:
            plan = Plan(clips, {Path(out): ("audio", "video")}, 256)
            how = lambda subset: {"of": list(subset)}  # noqa: E731
            make_shards(plan, plan.numbers, self.decode, self.content, how, 1_000, threads)

    def rates(self, clips: list[Source]) -> Iterator[float]:
        """Clips a second: decoded, then extracted."""
        for work in (lambda: list(self.decode(clips)), lambda: self.extract(clips)):
            begun = time.perf_counter()
            work()
            yield len(clips) / (time.perf_counter() - begun)

    def costs(self, clips: list[Source]) -> dict[str, float]:
        """Milliseconds of a processor for a clip, by thread."""
        spent: defaultdict[str, float] = defaultdict(float)

        def timed(name: str, work: Callable[..., T]) -> Callable[..., T]:
            def run(*arguments: Any) -> T:
                begun = time.thread_time()
                made = work(*arguments)
                spent[name] += time.thread_time() - begun
                return made

            return run

        content, embedder = self.content, self.content.embedder
        for holder, name in ((embedder, "pack"), (content, "embed")):
            vars(holder)[name] = timed(name, getattr(holder, name))
        timed("read and write", self.extract)(clips)
        del vars(embedder)["pack"], vars(content)["embed"]
        return {name: 1000 * seconds / len(clips) for name, seconds in spent.items()}


def tiny_embedder(folder: Path) -> Embedder:
    torch.manual_seed(0)
    vocabulary = Vocabulary.train(["so it goes"], 20, "char")
    sizes = EncoderConfig(len(vocabulary), 16, 2, 1, 1, 1, 1, 0, 4, 4)
    save_encoder(folder, Encoder(sizes), vocabulary, {"name": "made"})
    return Embedder.from_pretrained(folder)


def main() -> None:
    """Two tables."""
    settings = tyro.cli(Settings, description=__doc__)
    import decoders  # itself, by a name that other processes can import

    pool._serve = decoders.serve
    with tempfile.TemporaryDirectory() as folder:
        embedder = tiny_embedder(Path(folder) / "encoder")
    print(f"processes that take {settings.seconds} s for a clip: clips a second, share of most")
    for workers in (1, 2, 4, 8):
        most = workers / settings.seconds
        clips = sources(settings.clips * workers, settings.seconds)
        rates = Run(embedder, workers, settings.threads).rates(clips)
        decoded, extracted = (f"{rate:8.1f} {rate / most:6.0%}" for rate in rates)
        print(f"{workers:3}  decoded {decoded}   extracted {extracted}", flush=True)
    print(f"a clip of {CLIP} s, ms of a processor")
    found = Run(embedder, 2, settings.threads).costs(sources(settings.most, 0.0))
    print("   ".join(f"{name} {spent:.2f}" for name, spent in found.items()))
    threads = found["read and write"], found["pack"]
    slower, both = (1000 * CLIP / spent for spent in (max(threads), sum(threads)))
    print(f"without the encoder {both:.0f} s of clip a second, {slower:.0f} on two processors")


if __name__ == "__main__":
    main()
