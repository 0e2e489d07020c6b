"""Made-up feature streams with a sentiment, and a small Self-MM for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mmembed.batch import Batch, Padded
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.methods.self_mm import SelfMm, SelfMmConfig, StreamConfig
from mmembed.streams import stream_subsets

ITEMS = 8
TEXT = StreamConfig("text", 6, "first", post=5)
AUDIO = StreamConfig("audio", 5, hidden=4, out=3, post=4)
VIDEO = StreamConfig("video", 4, hidden=3, out=4, post=6)
VECTORS = (
    StreamConfig("text", 6, "mean", post=5),
    StreamConfig("audio", 5, "vector", out=4, post=4),
    StreamConfig("embedding", 4, "layers", layers=3, out=4, post=4),
)


def small_self_mm(
    streams: tuple[StreamConfig, ...] = (TEXT, AUDIO, VIDEO), **settings: float
) -> SelfMm:
    """Seeded, without dropout, before its first epoch."""
    torch.manual_seed(0)
    config = SelfMmConfig(streams, ITEMS, fusion=8, fusion_dropout=0.0)
    return SelfMm(replace(config, **settings))


def in_training(streams: tuple[StreamConfig, ...] = (TEXT, AUDIO, VIDEO)) -> SelfMm:
    """In epoch 2, all items seen, with labels of their own for each stream."""
    method = small_self_mm(streams)
    method.start_epoch(2)
    generator = torch.Generator().manual_seed(3)
    bank = method.bank
    bank.labels.copy_(torch.rand(bank.labels.shape, generator=generator) * 6 - 3)
    bank.labels[0] = sentiments()
    bank.features.copy_(torch.rand(bank.features.shape, generator=generator))
    bank.seen.fill_(True)
    return method


def sentiments() -> torch.Tensor:
    """(8,) of both signs."""
    return torch.tensor([2.0, -1.0, 1.0, -2.0, 0.4, -0.6, 3.0, -2.4])


def sentiment_batch(
    rows: list[int],
    streams: tuple[StreamConfig, ...] = (TEXT, AUDIO, VIDEO),
    *,
    missing: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Batch:
    """Some of 8 items; with `missing`, the first 7 have the 7 subsets and 3 has no label."""
    names = tuple(stream.name for stream in streams)
    has = [*stream_subsets(names), names] if missing else [names] * ITEMS
    inputs = {}
    for place, stream in enumerate(streams):
        items = []
        for row in rows:
            generator = torch.Generator().manual_seed(100 * place + row)
            steps = {"vector": 1, "layers": stream.layers}.get(stream.reading, 2 + row)
            item = torch.randn(steps, stream.width, generator=generator).to(dtype)
            items.append(item if stream.name in has[row] else item[:0])
        inputs[stream.name] = Padded.stack(items)
    sentiment = sentiments().to(dtype)
    if missing:
        sentiment[3] = float("nan")
    return Batch(
        tuple(f"item-{row}" for row in rows),
        inputs,
        {"sentiment": sentiment[rows]},
        {"row": torch.tensor(rows)},
    )


def write_features(
    folder: Path,
    splits: dict[str, int],
    steps: int = 1,
    limit: float | None = None,
    words: tuple[str, str] | None = None,
) -> Path:
    """Sentiment is the first column of the text; sound is noise that every fifth item lacks.

    Rows say whether it is positive, or with a `limit` how strong it is, in [-limit, limit]. Their
    transcripts are one of two `words`, of the negative and of the positive ones.
    """
    draw, records = np.random.default_rng(0), []
    for split, count in splits.items():
        for number in range(count):
            text = draw.normal(3, 2, (steps, 5)).astype(np.float32)
            features = {"text": text, "audio": draw.normal(0, 1, (steps, 3)).astype(np.float32)}
            if number % 5 == 4:
                del features["audio"]
            column = float(text[:, 0].mean())
            labels = Labels(category="positive" if column > 3 else "negative")
            if limit:
                rated = min(max((column - 3) / 6, -1), 1) * limit
                labels = Labels(sentiment=round(rated, 1), sentiment_limit=limit)
            row = Utterance(
                f"{split}-{number}",
                "features/all.safetensors#0",
                dialogue=f"{split}-video-{number // 4}",
                split=split,
                labels=labels,
                transcript=words[column > 3] if words else None,
            )
            records.append(Record(*to_record(Example(row, features=features))))
    write_shard(shard_path(folder, 0), records, {})
    return folder
