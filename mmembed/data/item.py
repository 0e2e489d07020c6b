"""An example in tensors: tokens, class ids, no batch yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from mmembed.batch import UNLABELLED
from mmembed.data.example import Example
from mmembed.features.audio import MEL_BANDS
from mmembed.features.text import Vocabulary, normalise_transcript
from mmembed.features.video import CROP
from mmembed.losses.ctc import ctc_steps_needed

EMPTY: Mapping[str, Tensor] = {
    "audio": torch.zeros(0, MEL_BANDS),
    "video": torch.zeros(0, CROP, CROP, dtype=torch.uint8),
    "text": torch.zeros(0, dtype=torch.int64),
}


@dataclass(frozen=True)
class Item:
    """An example in tensors: `inputs` and `targets` as in `Batch`, without the batch dimension."""

    key: str
    inputs: Mapping[str, Tensor]
    transcript: Tensor
    masked_text: Tensor
    speaker: int
    sentiment: float
    emotions: tuple[float, ...]


def to_item(
    example: Example,
    vocabulary: Vocabulary,
    alphabet: Vocabulary | None = None,
    speakers: Mapping[str, int] = MappingProxyType({}),
) -> Item:
    """Features, tokens and class ids as tensors.

    Args:
        example: an utterance.
        vocabulary: pieces of the text stream.
        alphabet: units of the transcript; None = transcripts are not wanted.
        speakers: class ids; a speaker not among them is UNLABELLED.
    """
    row = example.utterance
    inputs = dict(EMPTY)
    if example.audio is not None:
        inputs["audio"] = torch.from_numpy(example.audio.astype(np.float32))
    if example.video is not None:
        inputs["video"] = torch.from_numpy(example.video)
    if example.text is not None:
        inputs["text"] = torch.tensor(vocabulary.encode(example.text), dtype=torch.int64)
    transcript = alphabet.encode(normalise_transcript(row.transcript or "")) if alphabet else []
    sentiment = row.labels.sentiment
    return Item(
        key=example.key,
        inputs=inputs,
        transcript=torch.tensor(transcript, dtype=torch.int64),
        masked_text=EMPTY["text"],
        speaker=speakers.get(row.speaker or "", UNLABELLED),
        sentiment=float("nan") if sentiment is None else sentiment,
        emotions=row.labels.intensities,
    )


def clock_steps(inputs: Mapping[str, Tensor]) -> int:
    """Frames at 25 Hz on which an item's speech can be recognised; 0 with text alone."""
    audio, video = len(inputs["audio"]), len(inputs["video"])
    return -(-audio // 4) if audio else video


def possible_transcript(item: Item) -> Tensor:
    """The transcript, or nothing when the item is too short for any CTC alignment of it."""
    needed = ctc_steps_needed(item.transcript.tolist())
    return item.transcript if needed <= clock_steps(item.inputs) else EMPTY["text"]
