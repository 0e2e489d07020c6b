"""What training does to an item: drops streams, masks and shifts, hides text tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mmembed.batch import STREAMS, UNLABELLED, stream_subsets
from mmembed.data.item import EMPTY, Item
from mmembed.features.audio import change_gain, spec_augment
from mmembed.features.text import MASK
from mmembed.features.video import augment_crops


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
