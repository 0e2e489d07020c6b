"""How much a clip's vector depends on the batch that it is in.

    python benchmarks/invariance.py SHARDS... --encoder ENCODER

Draws batches of clips from prepared shards, each clip with a random non-empty subset of its
streams, and compares their vectors with those of the same clips alone: the largest difference of
any number of `pooled`, `layers` and `frames` in float32, relative to numbers above 1, and the
smallest cosine of bfloat16 to float32 alone. In the padding, behind what clips hold, stands NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from mmembed.batch import Encoding
from mmembed.data.dataset import Examples
from mmembed.data.example import Example
from mmembed.embedder import Embedder
from mmembed.streams import stream_subsets


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        shards: folders of prepared shards.
        encoder: folder of an encoder.
        batches: drawn.
        largest: clips in a batch, at most.
        seed: of all draws.
    """

    shards: tyro.conf.Positional[tuple[Path, ...]]
    encoder: Path
    batches: int = 200
    largest: int = 16
    seed: int = 0


@torch.no_grad()
def encode(embedder: Embedder, examples: Sequence[Example], *, half: bool = False) -> Encoding:
    """As `Embedder.encode`, with NaN where no clip has anything."""
    inputs = {}
    packed = embedder.pack(examples)
    assert packed is not None, "a clip is too long for one batch"
    for stream, steps in packed.streams.items():
        padded = inputs[stream] = steps.pad()
        if padded.values.is_floating_point():
            padded.values[~padded.mask] = torch.nan
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        encoding: Encoding = embedder.encoder(inputs)
    return encoding


def main() -> None:
    """Two lines."""
    settings = tyro.cli(Settings, description=__doc__)
    embedder = Embedder.from_pretrained(settings.encoder)
    examples = Examples(settings.shards)
    draw = np.random.default_rng(settings.seed)
    largest, smallest = 0.0, 1.0
    subsets = set()
    for _ in range(settings.batches):
        count = int(draw.integers(2, settings.largest + 1))
        batch = []
        for index in draw.choice(len(examples), count, replace=False):
            whole = replace(examples[int(index)], features={})
            held = stream_subsets(whole.streams)
            batch.append(whole.only(held[int(draw.integers(len(held)))]))
            subsets.add(batch[-1].streams)
        together, half = encode(embedder, batch), encode(embedder, batch, half=True)
        for row, example in enumerate(batch):
            alone = encode(embedder, [example])
            pairs = [
                (together.pooled[row], alone.pooled[0]),
                (together.layers[row], alone.layers[0]),
                (together.frames.item(row), alone.frames.item(0)),
            ]
            for one, other in pairs:
                difference = (one - other).abs() / other.abs().clamp(min=1)
                largest = max(largest, float(difference.nan_to_num(nan=torch.inf).max()))
            cosine = torch.cosine_similarity(half.pooled[row].float(), alone.pooled[0], 0)
            smallest = min(smallest, float(cosine))
    print(f"{settings.batches} batches of 2 to {settings.largest} clips, {len(subsets)} subsets")
    print(f"float32: largest difference {largest:.2e}; bfloat16: smallest cosine {smallest:.6f}")


if __name__ == "__main__":
    main()
