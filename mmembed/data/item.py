"""An item: one utterance in tensors. Training changes it at random, and several make a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor

from mmembed.batch import UNLABELLED, Batch, Packed, Padded
from mmembed.features.audio import LOG_SCALE, MEL_BANDS, SAMPLES_PER_FRAME
from mmembed.features.text import MASK
from mmembed.features.video import CROP
from mmembed.losses import ctc_steps_needed
from mmembed.settings.pretrain import Augmentation
from mmembed.streams import STREAMS, stream_subsets

EMPTY: Final[Mapping[str, Tensor]] = {
    "audio": torch.zeros(0, MEL_BANDS),
    "video": torch.zeros(0, CROP, CROP, dtype=torch.uint8),
    "text": torch.zeros(0, dtype=torch.int64),
}
"""The streams of a clip that has none."""

SUBSETS: Final = {held: stream_subsets(held) for held in stream_subsets()}

# Of the log-mel:
BAND_MASKS: Final = 2
WIDEST_BAND_MASK: Final = 18  # bands
TIME_MASKS: Final = 2
LONGEST_TIME_MASK: Final = 0.1  # of the clip

# Of the face crops:
LARGEST_SHIFT: Final = 5  # pixels of crops of 64, of larger ones in proportion
LARGEST_TURN: Final = 10  # degrees
ZOOM: Final = 0.15
STRETCH: Final = 0.08
SIDE_LIGHT: Final = 0.3  # difference of the edges from the middle
CONTRAST: Final = 0.3
BRIGHTNESS: Final = 0.3


@dataclass(frozen=True)
class Item:
    """An utterance in tensors, without the batch dimension.

    Attributes:
        key: of the utterance.
        inputs: as in `Batch`; a missing stream is that of `EMPTY`.
        transcript: (U,) output units of speech recognition.
        masked_text: (T,) the true tokens of the text stream, some of which are hidden there.
        speaker: class id.
        audio_frames: frames at 25 Hz that its audio surely has; 0 = as many as its log-mel has.
    """

    key: str
    inputs: Mapping[str, Tensor]
    transcript: Tensor = EMPTY["text"]
    masked_text: Tensor = EMPTY["text"]
    speaker: int = UNLABELLED
    audio_frames: int = 0


def collate(items: Sequence[Item]) -> Batch:
    """Items as a batch; a transcript that CTC cannot align to its clip is left out."""
    transcripts = [
        item.transcript
        if ctc_steps_needed(item.transcript.tolist()) <= _grid_frames(item)
        else EMPTY["text"]
        for item in items
    ]
    return Batch(
        keys=tuple(item.key for item in items),
        inputs={s: Packed.concatenate([item.inputs[s] for item in items]) for s in STREAMS},
        targets={
            "transcript": Padded.stack(transcripts),
            "masked_text": Padded.stack([item.masked_text for item in items]),
            "speaker": torch.tensor([item.speaker for item in items]),
        },
    )


def sure_frames(samples: Any) -> Any:
    """Frames at 25 Hz that a pretrained encoder surely makes of so many samples, one number or an
    array: those of the wav2vec 2.0 kind lose up to 400 samples at the end.
    """
    return np.maximum(1, -(-(samples - 400) // SAMPLES_PER_FRAME))


def _grid_frames(item: Item) -> int:
    """Frames at 25 Hz in which an item's speech can be recognised; 0 with text alone."""
    audio, video = item.inputs["audio"], len(item.inputs["video"])
    if not len(audio):
        return video
    return item.audio_frames or -(-len(audio) // 4)


def augment(
    item: Item, settings: Augmentation, generator: torch.Generator, mask: int = MASK
) -> Item:
    """Drop streams, mask and shift, hide text tokens.

    An item left with neither audio nor video loses its transcript and speaker: nothing in it
    could tell them.
    """
    inputs = dict(item.inputs)
    held = [stream for stream in STREAMS if len(inputs[stream])]
    if len(held) > 1 and _chance(generator) >= settings.keep_streams:
        subsets = SUBSETS[tuple(held)]
        kept = subsets[int(torch.randint(len(subsets), (), generator=generator))]
        for stream in set(held) - set(kept):
            inputs[stream] = EMPTY[stream]
    if settings.audio and len(inputs["audio"]) and inputs["audio"].ndim < 3:
        louder = change_gain(inputs["audio"], settings.gain * (2 * _chance(generator) - 1))
        inputs["audio"] = spec_augment(louder, generator)
    if settings.video and len(inputs["video"]):
        inputs["video"] = augment_crops(inputs["video"], generator)
    masked_text = EMPTY["text"]
    if settings.mask_text > 0 and len(inputs["text"]):
        fraction = settings.mask_text * _chance(generator)
        hidden = torch.rand(len(inputs["text"]), generator=generator) < fraction
        hidden[int(torch.randint(len(hidden), (), generator=generator))] = True
        masked_text = inputs["text"]
        inputs["text"] = inputs["text"].masked_fill(hidden, mask)
    perceived = len(inputs["audio"]) or len(inputs["video"])
    return replace(
        item,
        inputs=inputs,
        masked_text=masked_text,
        transcript=item.transcript if perceived else EMPTY["text"],
        speaker=item.speaker if perceived else UNLABELLED,
    )


def change_gain(mel: Tensor, decibels: float) -> Tensor:
    """(T, 80) log-mel, or (N,) samples, of the same sound made louder (or softer, below 0)."""
    if mel.ndim == 1:
        return mel * 10 ** (decibels / 20)
    return mel + decibels / 10 * math.log(10) / LOG_SCALE


def spec_augment(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Mask bands and times with the mean (SpecAugment, Park et al. 2019, arXiv 1904.08779).

    Of samples, which have no bands, times alone.

    Args:
        mel: (T, 80) log-mel or (N,) samples; not changed.
        generator: the only source of randomness.
    """

    def upto(limit: int) -> int:
        return int(torch.randint(limit + 1, (), generator=generator))

    mel = mel.clone()
    for _ in range(BAND_MASKS if mel.ndim > 1 else 0):
        size = upto(WIDEST_BAND_MASK)
        start = upto(MEL_BANDS - size)
        mel[:, start : start + size] = 0.0
    for _ in range(TIME_MASKS):
        size = upto(int(LONGEST_TIME_MASK * len(mel)))
        start = upto(len(mel) - size)
        mel[start : start + size] = 0.0
    return mel


def augment_crops(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Another camera and another lamp: mirrored, turned, zoomed, stretched, shifted, relit.

    One draw for all frames, so that what moves is the face alone.

    Args:
        crops: (T, S, S) or (T, S, S, 3) uint8; not changed.
        generator: the only source of randomness.
    """

    def within(limit: float) -> float:
        return limit * (2 * float(torch.rand((), generator=generator)) - 1)

    mirror = 1 if torch.rand((), generator=generator) < 0.5 else -1
    size = crops.shape[1]
    middle = (size - 1) / 2
    transform = cv2.getRotationMatrix2D((middle, middle), within(LARGEST_TURN), 1 + within(ZOOM))
    stretch = mirror * (1 + within(STRETCH))
    transform = transform @ np.array([[stretch, 0, middle * (1 - stretch)], [0, 1, 0], [0, 0, 1]])
    shift = LARGEST_SHIFT * size / CROP
    transform[:, 2] += within(shift), within(shift)
    moved = np.stack(
        [
            cv2.warpAffine(crop, transform, (size, size), borderMode=cv2.BORDER_REPLICATE)
            for crop in crops.numpy()
        ]
    )
    across = torch.linspace(-1, 1, size) * within(SIDE_LIGHT)
    light = 1 + within(BRIGHTNESS) + across
    light = light[:, None] if crops.ndim == 4 else light
    relit = ((torch.from_numpy(moved).float() - 128) * (1 + within(CONTRAST)) + 128) * light
    return relit.clamp(0, 255).byte()


def _chance(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
