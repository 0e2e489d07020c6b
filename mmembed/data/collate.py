"""From examples to batches: tokens, class ids, augmentation, padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from mmembed.batch import STREAMS, UNLABELLED, Batch, Padded, stream_subsets
from mmembed.data.example import Example
from mmembed.features.audio import MEL_BANDS, change_gain, spec_augment
from mmembed.features.text import MASK, Vocabulary, normalise_transcript
from mmembed.features.video import CROP, augment_crops
from mmembed.losses import ctc_steps_needed

EMPTY: Mapping[str, Tensor] = {
    "audio": torch.zeros(0, MEL_BANDS),
    "video": torch.zeros(0, CROP, CROP, dtype=torch.uint8),
    "text": torch.zeros(0, dtype=torch.int64),
}


@dataclass(frozen=True)
class Augmentation:
    """What training does to an example; all of it a function of one generator.

    Attributes:
        audio: mask bands and times of the log-mel (SpecAugment).
        gain: make the sound up to so many dB louder or softer, alike in all bands.
        video: shift, mirror and brighten the face crops.
        keep_streams: probability that an item keeps all its streams; else it keeps a random
            non-empty subset, so that every subset is trained.
        mask_text: the largest share of an item's text tokens that is hidden for the masked-token
            term; any share up to it is as likely, and one token is hidden at least.
    """

    audio: bool = True
    gain: float = 6.0
    video: bool = True
    keep_streams: float = 0.6
    mask_text: float = 1.0


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


def augment(item: Item, settings: Augmentation, generator: torch.Generator) -> Item:
    """Drop streams, mask and shift, hide text tokens.

    An item left with neither sound nor picture loses its transcript and speaker: nothing in it
    could tell them.
    """
    inputs = dict(item.inputs)
    held = [stream for stream in STREAMS if len(inputs[stream])]
    if len(held) > 1 and _chance(generator) >= settings.keep_streams:
        subsets = stream_subsets(held)
        kept = subsets[int(torch.randint(len(subsets), (), generator=generator))]
        for stream in set(held) - set(kept):
            inputs[stream] = EMPTY[stream]
    if settings.audio and len(inputs["audio"]):
        louder = change_gain(inputs["audio"], settings.gain * (2 * _chance(generator) - 1))
        inputs["audio"] = spec_augment(louder, generator)
    if settings.video and len(inputs["video"]):
        inputs["video"] = augment_crops(inputs["video"], generator)
    masked_text = EMPTY["text"]
    if settings.mask_text > 0 and len(inputs["text"]):
        share = settings.mask_text * _chance(generator)
        hidden = torch.rand(len(inputs["text"]), generator=generator) < share
        hidden[int(torch.randint(len(hidden), (), generator=generator))] = True
        masked_text = inputs["text"]
        inputs["text"] = inputs["text"].masked_fill(hidden, MASK)
    perceived = len(inputs["audio"]) or len(inputs["video"])
    return replace(
        item,
        inputs=inputs,
        masked_text=masked_text,
        transcript=item.transcript if perceived else EMPTY["text"],
        speaker=item.speaker if perceived else UNLABELLED,
    )


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def clock_steps(inputs: Mapping[str, Tensor]) -> int:
    """Frames at 25 Hz on which an item's speech can be recognised; 0 with text alone."""
    audio, video = len(inputs["audio"]), len(inputs["video"])
    return -(-audio // 4) if audio else video


def possible_transcript(item: Item) -> Tensor:
    """The transcript, or nothing when the item is too short for any CTC alignment of it."""
    needed = ctc_steps_needed(item.transcript.tolist())
    return item.transcript if needed <= clock_steps(item.inputs) else EMPTY["text"]


def collate(items: Sequence[Item]) -> Batch:
    """Pad items into a batch; transcripts that CTC could not align are left out."""
    return Batch(
        keys=tuple(item.key for item in items),
        inputs={
            stream: Padded.stack([item.inputs[stream] for item in items]) for stream in STREAMS
        },
        targets={
            "transcript": Padded.stack([possible_transcript(item) for item in items]),
            "masked_text": Padded.stack([item.masked_text for item in items]),
            "speaker": torch.tensor([item.speaker for item in items]),
            "sentiment": torch.tensor([item.sentiment for item in items], dtype=torch.float32),
            "emotions": torch.tensor([item.emotions for item in items], dtype=torch.float32),
        },
    )
