"""Long recordings: how near windows come to the whole, and the memory that hours take.

    python benchmarks/long.py difference --encoder ENCODER --shards corpus/shards
    python benchmarks/long.py memory --encoder ENCODER --clips VIDEOS --hours 2

`difference` puts utterances of the shards one after another, to recordings of `--seconds`, encodes
each at once and by windows of several sizes, and prints the relative L2 distance of frames (all,
and those within a second of a seam), pooled vector and layers from those of the whole, and the
character error rate of the recogniser, where the folder has one: of the whole, by windows, and of
each utterance by itself. `memory` puts the clips of a folder one after another, over and over, into
a film of 160 x 120 pixels at 25 Hz with sound at 16 kHz, embeds it, and prints time and the largest
resident memory, sampled four times a second: of this process and the decoding one, where what they
share counts twice, and with the server that forks them, where it counts once.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
import tyro
from torch import Tensor

from mmembed.data.dataset import Examples
from mmembed.data.example import Example, Utterance
from mmembed.data.media import load_clip
from mmembed.data.sources import MEDIA_SUFFIXES
from mmembed.embedder import Embedder
from mmembed.embedder.windows import Encoded, Window, encode_windows, tile
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.text import normalise_transcript
from mmembed.features.video import VIDEO_RATE
from mmembed.metrics import character_error_rate

SIZES = ((10, 5), (30, 5), (60, 15), (120, 5), (120, 15), (120, 30), (240, 30))  # seconds
SHAPE = (120, 160)  # of the film
HOP = SAMPLE_RATE // VIDEO_RATE  # samples a picture


@dataclass(frozen=True)
class Difference:
    """Encode recordings at once and by windows.

    Attributes:
        encoder: folder.
        shards: of prepared utterances with sound and pictures.
        seconds: of each recording.
        recordings: how many.
    """

    encoder: Path
    shards: Path
    seconds: int = 300
    recordings: int = 2


@dataclass(frozen=True)
class Memory:
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


def main() -> None:
    """One of both."""
    settings = tyro.cli(Difference | Memory, description=__doc__)
    embedder = Embedder.from_pretrained(settings.encoder)
    if isinstance(settings, Difference):
        compare(embedder, settings)
    else:
        measure(embedder, settings)


def compare(embedder: Embedder, settings: Difference) -> None:
    """A row for each size of window, means and maxima over all recordings."""
    examples = Examples([settings.shards], keep=lambda meta: meta["split"] != "train")
    rows: dict[tuple[int, int], list[list[float]]] = {size: [] for size in SIZES}
    alone, together = [], []
    for seed in range(settings.recordings):
        utterances = draw(examples, settings.seconds, seed)
        recording = join(utterances)
        words = " ".join(normalise_transcript(e.utterance.transcript or "") for e in utterances)
        frames = range(0 if recording.video is None else len(recording.video))
        whole = encode(embedder, recording, tile(frames, len(frames), 0))
        together.append(error(embedder, words, [whole]))
        each = [encode(embedder, e, tile(range(10_000), 10_000, 0)) for e in utterances]
        alone.append(error(embedder, words, each))
        for (core, context), found in rows.items():
            windows = tile(frames, core * VIDEO_RATE, context * VIDEO_RATE)
            parts = encode(embedder, recording, windows)
            row = [*distances(parts, whole, windows), error(embedder, words, [parts])]
            found.append(row)
    names = ["core s", "context s", "frames mean", "max", "at seams mean", "max", "pooled"]
    print(f"| {' | '.join([*names, 'layers max', 'CER'])} |\n{'|---' * 9}|")
    for (core, context), found in rows.items():
        table = np.array(found)
        largest = [False, True, False, True, True, True, False]
        cells = [c.max() if most else c.mean() for c, most in zip(table.T, largest, strict=True)]
        print(f"| {core} | {context} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    print(f"CER of the whole {np.mean(together):.3f}, of each utterance alone {np.mean(alone):.3f}")


def draw(examples: Examples, seconds: int, seed: int) -> list[Example]:
    """Utterances with sound and pictures, to `seconds` in all, cut where both end."""
    order, drawn, frames = np.random.default_rng(seed), [], 0
    while frames < seconds * VIDEO_RATE:
        example = examples[int(order.integers(len(examples)))]
        if example.audio is None or example.video is None:
            continue
        count = min(len(example.audio) // 4, len(example.video))
        parts = {"audio": example.audio[: 4 * count], "video": example.video[:count]}
        drawn.append(Example(example.utterance, **parts))  # type: ignore[arg-type]
        frames += count
    return drawn


def join(utterances: Sequence[Example]) -> Example:
    """One after another."""
    return Example(
        Utterance("joined", None),
        audio=np.concatenate([e.audio for e in utterances if e.audio is not None]),
        video=np.concatenate([e.video for e in utterances if e.video is not None]),
    )


def encode(embedder: Embedder, example: Example, windows: Sequence[Window]) -> Encoded:
    """Without text."""
    with torch.no_grad():
        return encode_windows(
            example,
            windows,
            [],
            lambda part: embedder.hidden([part]),
            embedder.vocabulary,
            embedder.recogniser,
        )


def distances(parts: Encoded, whole: Encoded, windows: Sequence[Window]) -> list[float]:
    """Frames mean, max, at seams mean, max, pooled, layers max."""

    def relative(one: Tensor, other: Tensor) -> Tensor:
        distance: Tensor = (one - other).norm(dim=-1) / other.norm(dim=-1)
        return distance

    frames, layers = relative(parts.frames, whole.frames), relative(parts.layers, whole.layers)
    seams = torch.zeros(len(frames), dtype=torch.bool)
    for window in windows[1:]:
        seams[window.core.start - VIDEO_RATE : window.core.start + VIDEO_RATE] = True
    near = frames[seams]
    found = [frames.mean(), frames.max(), near.mean(), near.max(), layers[-1], layers.max()]
    return [float(value) for value in found]


def error(embedder: Embedder, words: str, parts: Sequence[Encoded]) -> float:
    """Character error rate of the parts' own transcripts; NaN without a recogniser."""
    if embedder.recogniser is None:
        return float("nan")
    heard = [embedder.recogniser.transcribe(p.log_probs) for p in parts if p.log_probs is not None]
    return character_error_rate([words], [" ".join(heard)])


def measure(embedder: Embedder, settings: Memory) -> None:
    """Make the film, embed it and say what that took."""
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mkv"
        write_film(film, settings)
        print(f"film of {settings.hours:g} h, {film.stat().st_size / 1e6:.0f} MB", flush=True)
        start = time.monotonic()
        with Sampled() as sizes:
            embedding = embedder(film, transcribe=embedder.recogniser is not None)
        seconds = time.monotonic() - start
        print(
            f"{embedding.seconds:.0f} s embedded in {seconds:.0f} s: frames "
            f"{embedding.frames.shape}, {len(embedding.transcript or '')} letters"
        )
        most, own = (max(column) / 2**20 for column in zip(*sizes, strict=True))
        print(f"at most {most:.0f} MiB resident here and in the child, {own:.0f} MiB of their own")


def write_film(path: Path, settings: Memory) -> None:
    """Some minutes are encoded; the rest repeats their packets."""
    clips = sorted(p for p in settings.clips.rglob("*") if p.suffix.lower() in MEDIA_SUFFIXES)
    minutes = path.with_name("minutes.mkv")
    with av.open(str(minutes), "w") as container:
        video = container.add_stream("libx264", rate=VIDEO_RATE, options={"preset": "ultrafast"})
        video.height, video.width = SHAPE
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        count = 0
        for clip in (load_clip(path) for path in clips):
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
    """Sizes in bytes while a block runs, see `resident`."""

    def __enter__(self) -> list[tuple[int, int]]:
        self._sizes, self._done = [resident()], threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self._sizes

    def _sample(self) -> None:
        while not self._done.wait(0.25):
            self._sizes.append(resident())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def resident() -> tuple[int, int]:
    """Bytes of this process and the decoding one, and of all with the server that it was forked
    from, where pages that n of them share count 1/n for each.
    """
    here, *below = family(os.getpid())
    leaves = [pid for pid in below if len(list(family(pid))) == 1]
    return sum(field(pid, "Rss") for pid in [here, *leaves]), sum(
        field(pid, "Pss") for pid in [here, *below]
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
