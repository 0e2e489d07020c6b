"""Words as vectors: of the frames of an encoder in which each is spoken."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from mmembed.batch import Packed
from mmembed.config import Hz
from mmembed.data.example import Example
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.embedder.embedding import Word
from mmembed.embedder.folder import HEAD
from mmembed.embedder.recogniser import Recogniser
from mmembed.encoder import Encoder
from mmembed.features.text import normalise_transcript
from mmembed.features.video import SMALL_GREY, CropForm
from mmembed.nn.transformer import mean_and_std
from mmembed.pretrained_encoder import PretrainedEncoder

NO_RECOGNISER: Final = f"the encoder folder holds no {HEAD}; name one that does as recogniser"


def perceived(example: Example, encoder: Encoder | PretrainedEncoder) -> Example:
    """Its sound and its pictures, as far as an encoder reads them."""
    streams = {"audio", "video"} & set(encoder.reads)
    crops = SMALL_GREY if example.video is None else CropForm.of(example.video)
    if crops != encoder.crops and not encoder.any_crops:
        streams.discard("video")
    return replace(example.only(tuple(streams)), features={})


def has_times(example: Example, encoder: Encoder | PretrainedEncoder) -> bool:
    """Whether its frames have times: whether an encoder reads sound or pictures of it."""
    return bool({"audio", "video"} & set(encoder.reads) & set(example.streams))


def find_words(
    recogniser: Recogniser | None, transcript: str | None, log_probs: Tensor | None
) -> tuple[TimedWord, ...]:
    """The words of a normalised transcript where a recogniser finds them.

    Args:
        recogniser: or None, where there is none.
        transcript: None = not known.
        log_probs: (T, C) of its output units; None = its encoder could not read the clip.

    Raises:
        ValueError: says why it finds none.
    """
    if recogniser is None:
        raise ValueError(f"{NO_RECOGNISER}, or give their times")
    if transcript is None:
        raise ValueError("they are not known, give text or transcribe=True")
    if log_probs is None:
        raise ValueError("the recogniser reads none of these streams")
    return recogniser.time_words(log_probs, transcript)


def embed_words(words: Sequence[TimedWord], frames: Tensor, rate: Hz) -> tuple[Word, ...]:
    """Each word with mean and standard deviation of its frames, see `frames_of`.

    Args:
        words: in the order of their starts.
        frames: (T, D) of the clip, T at least 1.
        rate: of the frames.

    Raises:
        ValueError: a word starts more than a frame after the clip has ended.
    """
    if not words:
        return ()
    seconds = len(frames) / rate
    if words[-1].start > seconds + 1 / rate:
        late = words[-1]
        raise ValueError(f"{late.text!r} starts at {late.start} s, the clip ends at {seconds:g} s")
    spans = [frames_of(word, rate, len(frames)) for word in words]
    steps = torch.cat([frames[span.start : span.stop] for span in spans])
    vectors = mean_and_std(Packed(steps, torch.tensor([len(span) for span in spans])))
    return tuple(
        Word(normalise_transcript(word.text), word.start, word.end, vector)
        for word, vector in zip(words, vectors, strict=True)
    )


def frames_of(word: TimedWord, rate: Hz, count: int) -> range:
    """The frames, of so many, whose middle lies in a word; the nearest one if there is none."""
    first, stop = (math.ceil(time * rate - 0.5) for time in (word.start, word.end))
    if first < min(stop, count):
        return range(first, min(stop, count))
    nearest = min(math.floor((word.start + word.end) / 2 * rate), count - 1)
    return range(nearest, nearest + 1)
