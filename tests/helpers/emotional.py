"""Embeddings of clips with emotions, as `mmembed extract` writes them, for protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from helpers.prepared import described, write_embeddings

from mmembed.data.shards.layout import Record

EMOTIONS = ("anger", "fear", "joy")


def speaker_of(number: int) -> str:
    """Six, each with clips of all emotions."""
    return f"s{number // 3 % 6}"


def emotion_of(number: int) -> str | None:
    return EMOTIONS[number % 3]


def clip(
    number: int,
    strength: float,
    speaker: Callable[[int], str | None] = speaker_of,
    emotion: Callable[[int], str | None] = emotion_of,
) -> Record:
    """Noise, with the emotion of `emotion_of` in one dimension of all parts."""
    record = described(
        number,
        speaker=speaker(number),
        labels={"category": emotion(number)} if emotion(number) else None,
        media=f"sounds/{number:03}.wav",
    )
    for name in ("pooled.npy", "layers.npy", "frames.npy"):
        array = np.array(record.members[name])
        array[..., number % 3] += strength
        record.members[name] = array
    return record


def write_clips(
    folder: Path,
    numbers: Iterable[int] = range(60),
    strength: float = 2.0,
    speaker: Callable[[int], str | None] = speaker_of,
    emotion: Callable[[int], str | None] = emotion_of,
) -> Path:
    records = [clip(number, strength, speaker, emotion) for number in numbers]
    return write_embeddings(folder, records, ["audio"])
