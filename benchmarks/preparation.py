"""How fast clips become features: each stage, one and two processes, and the nearest peers.

    python benchmarks/preparation.py grid CORPORA/grid_av

Figures are real time factors: seconds of clip in a second of the clock (stages: in a second of one
core's time). cv2 and a plain PyAV loop decode the same files; both give all pictures and, unlike
the decoder here, no sound.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from mmembed.data.corpora import CORPORA
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import DecodedMedia, load_clip
from mmembed.data.media.load import MediaSource
from mmembed.data.media.pool import Decoder
from mmembed.data.prepare import prepare_shards
from mmembed.data.shards.layout import Record, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import DataError
from mmembed.features.video import face_crops


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        corpus: name of a reader, such as grid.
        source: the folder of the corpus.
        clips: how many.
        repeats: the fastest of so many runs counts.
    """

    corpus: tyro.conf.Positional[str]
    source: tyro.conf.Positional[Path]
    clips: int = 100
    repeats: int = 3


def main() -> None:
    """Measure and print."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = CORPORA[settings.corpus](settings.source)[: settings.clips]
    print(f"{len(rows)} clips of {settings.corpus}, {os.cpu_count()} cores")
    seconds = stages(rows, settings.source)
    for workers in (1, 2):
        took = min(prepared(rows, settings.source, workers) for _ in range(settings.repeats))
        print(f"prepare, {workers} processes: {seconds / took:7.1f} x real time")
    for name, peer in PEERS.items():
        took = min(timed(peer, rows, settings.source) for _ in range(settings.repeats))
        print(f"{name:22}: {seconds / took:7.1f} x real time")


def pictures(clip: DecodedMedia) -> NDArray[np.uint8]:
    assert clip.video is not None
    return clip.video


def stages(rows: Sequence[Utterance], folder: Path) -> float:
    """Print what a clip costs, stage by stage; returns the seconds of all clips."""
    spent = dict.fromkeys(("decode", "faces", "write"), 0.0)
    total, examples = 0.0, list[Example]()
    for row in rows[:4]:
        face_crops(pictures(load_clip(folder / str(row.media))))  # caches and libraries warm up
    with Decoder() as decoder:
        for row in rows:
            clock = [time.process_time()]
            clip = load_clip(folder / str(row.media))
            clock.append(time.process_time())
            face_crops(pictures(clip))
            clock.append(time.process_time())
            for stage, start, end in zip(spent, clock, clock[1:], strict=False):
                spent[stage] += end - start
            total += clip.seconds
        for example in decoder.load(MediaSource(row, folder) for row in rows):
            if isinstance(example, DataError):
                raise example
            examples.append(example)
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        records = [Record(*to_record(example)) for example in examples]
        write_shard(Path(scratch) / "shard-000000.tar", records, {})
        spent["write"] = time.process_time() - start
    for stage, cost in spent.items():
        print(f"{stage:22}: {1000 * cost / len(rows):7.2f} ms a clip, {total / cost:8.0f} x")
    print(f"{'all':22}: {1000 * sum(spent.values()) / len(rows):7.2f} ms a clip of "
          f"{total / len(rows):.2f} s, {total / sum(spent.values()):.1f} x")  # fmt: skip
    return total


def prepared(rows: Sequence[Utterance], folder: Path, workers: int) -> float:
    """Seconds that `prepare_shards` takes, the start of its processes left out."""
    with tempfile.TemporaryDirectory() as scratch:
        marks: list[float] = []
        prepare_shards(
            rows,
            folder,
            Path(scratch),
            workers=workers,
            records_per_shard=32,
            on_progress=lambda _: marks.append(time.perf_counter()),
        )
        warm = 4 * workers  # clips in flight when the first is done
        return (marks[-1] - marks[warm]) * len(rows) / (len(rows) - 1 - warm)


def timed(decode: Callable[[str], int], rows: Sequence[Utterance], folder: Path) -> float:
    """Seconds that a decoder takes for all clips."""
    start = time.process_time()
    for row in rows:
        if not decode(str(folder / str(row.media))):
            sys.exit(f"{row.media}: no picture")
    return time.process_time() - start


def with_cv2(path: str) -> int:
    """Pictures as cv2.VideoCapture gives them, made grey."""
    capture, count = cv2.VideoCapture(path), 0
    while (found := capture.read())[0]:
        cv2.cvtColor(found[1], cv2.COLOR_BGR2GRAY)
        count += 1
    return count


def with_av(path: str, kind: str) -> int:
    """Pictures as PyAV gives them in a pixel format."""
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        return sum(len(f.to_ndarray(format=kind)) > 0 for f in container.decode(video=0))


def ours(path: str) -> int:
    """Pictures on the clock, without sound."""
    clip = load_clip(Path(path), streams=("video",))
    return 0 if clip.video is None else len(clip.video)


PEERS = {
    "ours, pictures alone": ours,
    "cv2.VideoCapture, grey": with_cv2,
    "PyAV, gray": lambda path: with_av(path, "gray"),
    "PyAV, rgb24": lambda path: with_av(path, "rgb24"),
}

if __name__ == "__main__":
    main()
