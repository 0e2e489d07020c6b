"""Long recordings: how near windows come to the whole.

    python benchmarks/long.py --encoder ENCODER --shards corpus/shards

Utterances of the shards are put one after another, to recordings of `--seconds`. Each is encoded
at once and by windows of several sizes. Printed are the relative L2 distance of frames (all, and
those within a second of a seam), pooled vector and layers from those of the whole, and the
character error rate of the recogniser, where the folder has one: of the whole, by windows, and of
each utterance by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from torch import Tensor

from mmembed.data.dataset import Examples
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.embedder import Embedder
from mmembed.embedder.windows import Encoded, Window, encode_windows, tile
from mmembed.features.text import normalise_transcript
from mmembed.features.video import VIDEO_RATE
from mmembed.metrics.speech import character_error_rate

SIZES = ((10, 5), (30, 5), (60, 15), (120, 5), (120, 15), (120, 30), (240, 30))  # seconds


@dataclass(frozen=True)
class Settings:
    """What is encoded.

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


def main() -> None:
    """A table."""
    settings = tyro.cli(Settings, description=__doc__)
    compare(Embedder.from_pretrained(settings.encoder), settings)


def compare(embedder: Embedder, settings: Settings) -> None:
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
        count = min(len(example.audio) // 640, len(example.video))
        parts = {"audio": example.audio[: 640 * count], "video": example.video[:count]}
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
            embedder.encoder,
            lambda part: embedder.hidden([part]),
            embedder.subwords,
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


if __name__ == "__main__":
    main()
