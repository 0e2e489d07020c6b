"""From examples to batches: tokens, class ids, augmentation, padding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mmembed.batch import STREAMS, Batch, Packed, Padded
from mmembed.data.item import Item, possible_transcript


def collate(items: Sequence[Item]) -> Batch:
    """Items as a batch; transcripts that CTC could not align are left out."""
    return Batch(
        keys=tuple(item.key for item in items),
        inputs={
            stream: Packed.concatenate([item.inputs[stream] for item in items])
            for stream in STREAMS
        },
        targets={
            "transcript": Padded.stack([possible_transcript(item) for item in items]),
            "masked_text": Padded.stack([item.masked_text for item in items]),
            "speaker": torch.tensor([item.speaker for item in items]),
            "sentiment": torch.tensor([item.sentiment for item in items], dtype=torch.float32),
            "emotions": torch.tensor([item.emotions for item in items], dtype=torch.float32),
        },
    )
