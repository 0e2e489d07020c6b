"""The memory that hours of film take, and thousands of clips.

    python benchmarks/memory.py film --encoder ENCODER --clips VIDEOS --hours 2
    python benchmarks/memory.py clips --encoder ENCODER --clips FOLDER --count 5000 --workers 8

`film` puts the clips of a folder one after another, over and over, into a film of 160 x 120 pixels
at 25 Hz with sound at 16 kHz, and embeds it. `clips` gives those of a folder to `mmembed extract`,
over and over under new names, and prints the largest size while each tenth of them was embedded.

Sizes are resident memory, sampled four times a second: of the process and those that decode for
it, where what they share counts for each, and with the server that forks them, where it counts
once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import cv2
import numpy as np
import tyro

from mmembed.data.folders import MEDIA_SUFFIXES
from mmembed.data.media.decode import load_clip
from mmembed.embedder import Embedder
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.video import VIDEO_RATE

EXTRACT = Path(__file__).parents[1] / "export" / "extract.py"
SHAPE = (120, 160)  # of the film
HOP = SAMPLE_RATE // VIDEO_RATE  # samples a picture
TENTHS = 10


@dataclass(frozen=True)
class Film:
    """Embed a long film.

    Attributes:
        encoder: folder.
        clips: folder of talking faces.
        hours: of the film.
        minutes: of different clips in it.
    """

    encoder: Path
    clips: Path
    hours: float = 2.0
    minutes: float = 1.0


@dataclass(frozen=True)
class Clips:
    """Extract many clips.

    Attributes:
        encoder: folder.
        clips: folder of media files.
        count: of clips.
        workers: processes that decode.
    """

    encoder: Path
    clips: Path
    count: int = 5_000
    workers: int = 1


def main() -> None:
    """One of both."""
    settings = tyro.cli(Film | Clips, description=__doc__)
    if isinstance(settings, Film):
        embed_film(settings)
    else:
        extract_clips(settings)


def media(folder: Path) -> list[Path]:
    """Media files of a folder, in the order of their names."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES)


def extract_clips(settings: Clips) -> None:
    """A row for each tenth of the clips."""
    size = -(-settings.count // TENTHS)
    with tempfile.TemporaryDirectory() as folder:
        held, out = Path(folder) / "clips", Path(folder) / "out"
        held.mkdir()
        files = islice(cycle(media(settings.clips)), settings.count)
        for number, path in enumerate(files):
            (held / f"{number:06d}{path.suffix}").symlink_to(path.resolve())
        command = [sys.executable, str(EXTRACT), str(held), "--out", str(out)]
        command += ["--encoder", str(settings.encoder), "--records-per-shard", str(size)]
        command += ["--workers", str(settings.workers)]
        process = subprocess.Popen(command)
        ends: list[int] = []
        with Sampled(process.pid) as sizes:
            while process.poll() is None:
                time.sleep(0.25)
                written = len(list(out.glob("shard-*.json")))
                ends += [len(sizes)] * (written - len(ends))
        if process.returncode:
            raise SystemExit(process.returncode)
    ends = [*ends, len(sizes)][: -(-settings.count // size)]
    print("| clips | at most resident, MiB | shared once |\n|---|---|---|")
    for tenth, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        both, once = (max(column) / 2**20 for column in zip(*sizes[start:end], strict=True))
        print(f"| {min((tenth + 1) * size, settings.count)} | {both:.0f} | {once:.0f} |")


def embed_film(settings: Film) -> None:
    """Make the film, embed it and say what that took."""
    embedder = Embedder.from_pretrained(settings.encoder)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mkv"
        write_film(film, settings)
        print(f"film of {settings.hours:g} h, {film.stat().st_size / 1e6:.0f} MB", flush=True)
        start = time.monotonic()
        with Sampled(os.getpid()) as sizes:
            embedding = embedder(film, transcribe=embedder.recogniser is not None)
        seconds = time.monotonic() - start
        print(
            f"{embedding.seconds:.0f} s embedded in {seconds:.0f} s: frames "
            f"{embedding.frames.shape}, {len(embedding.transcript or '')} letters"
        )
        most, own = (max(column) / 2**20 for column in zip(*sizes, strict=True))
        print(f"at most {most:.0f} MiB resident here and in the child, {own:.0f} MiB of their own")


def write_film(path: Path, settings: Film) -> None:
    """Some minutes are encoded; the rest repeats their packets."""
    minutes = path.with_name("minutes.mkv")
    with av.open(str(minutes), "w") as container:
        video = container.add_stream("libx264", rate=VIDEO_RATE, options={"preset": "ultrafast"})
        video.height, video.width = SHAPE
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        count = 0
        for clip in map(load_clip, media(settings.clips)):
            if clip.audio is None or clip.video is None:
                continue
            for number, picture in enumerate(clip.video):
                small = cv2.resize(picture, SHAPE[::-1], interpolation=cv2.INTER_AREA)
                frame = av.VideoFrame.from_ndarray(small, format="gray").reformat(format="yuv420p")
                frame.pts, frame.time_base = count, Fraction(1, VIDEO_RATE)
                sound = np.zeros((1, HOP), np.int16)
                held = clip.audio[number * HOP : (number + 1) * HOP]
                sound[0, : len(held)] = held * 32767
                samples = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
                samples.sample_rate, samples.pts = SAMPLE_RATE, count * HOP
                samples.time_base = Fraction(1, SAMPLE_RATE)
                container.mux(video.encode(frame))
                container.mux(audio.encode(samples))
                count += 1
            if count >= settings.minutes * 60 * VIDEO_RATE:
                break
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    lasts = Fraction(count, VIDEO_RATE)
    with av.open(str(path), "w") as out:
        streams = None
        for turn in range(-(-int(settings.hours * 3600) // max(1, int(lasts)))):
            with av.open(str(minutes)) as container:
                if streams is None:
                    streams = [out.add_stream_from_template(s) for s in container.streams]
                for packet in container.demux():
                    if packet.dts is None:
                        continue
                    late = int(turn * lasts / packet.time_base)
                    packet.pts, packet.dts = (packet.pts or 0) + late, packet.dts + late
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)


class Sampled:
    """Sizes in bytes of a process while a block runs, see `resident`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __enter__(self) -> list[tuple[int, int]]:
        self._sizes, self._done = [resident(self._pid)], threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self._sizes

    def _sample(self) -> None:
        while not self._done.wait(0.25):
            self._sizes.append(resident(self._pid))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def resident(pid: int) -> tuple[int, int]:
    """Bytes of a process and of those that decode for it, and of all with the server that these
    were forked from, where pages that n of them share count 1/n for each.
    """
    first, *below = family(pid)
    leaves = [pid for pid in below if len(list(family(pid))) == 1]
    return sum(field(pid, "Rss") for pid in [first, *leaves]), sum(
        field(pid, "Pss") for pid in [first, *below]
    )


def family(pid: int) -> Iterator[int]:
    """A process and those it started, and so on."""
    yield pid
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:  # it has ended
        return
    for child in children:
        yield from family(child)


def field(pid: int, name: str) -> int:
    """Bytes, of a process' smaps_rollup."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return int(text.split(f"\n{name}:")[1].split()[0]) << 10


if __name__ == "__main__":
    main()
