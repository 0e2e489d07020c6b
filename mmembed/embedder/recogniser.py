"""The words of a clip: what was said and when, and their vectors.

Times are those that are given, else those that the speech recogniser beside the encoder finds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mmembed.batch import Packed
from mmembed.config import Hz
from mmembed.ctc import align, greedy_tokens
from mmembed.data.example import Example
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.embedder.embedding import Word
from mmembed.encoder import FRAME_RATE, Encoder
from mmembed.features.text import Vocabulary, normalise_transcript
from mmembed.features.video import SMALL_GREY, CropForm
from mmembed.nn.transformer import mean_and_std
from mmembed.pretrained_encoder import PretrainedEncoder

NO_RECOGNISER: Final = (
    "the encoder folder holds no recogniser.safetensors; name one that does as recogniser"
)


class Recogniser(nn.Module):
    """The CTC head of pre-training with its output units; it reads `EncoderOutput.audio_visual`.

    Attributes:
        alphabet: its output units, such as characters.
    """

    def __init__(self, head: nn.Linear, alphabet: Vocabulary) -> None:
        super().__init__()
        if head.out_features != len(alphabet):
            raise ValueError(f"{head.out_features} classes for an alphabet of {len(alphabet)}")
        self.head = head
        self.alphabet = alphabet

    def forward(self, frames: Packed) -> Packed:
        """(N, D) to (N, C) log-probabilities of the output units."""
        return frames.with_values(self.head(frames.values).float().log_softmax(1))

    def transcribe(self, log_probs: Tensor) -> str:
        """(T, C) of one clip -> its greedy transcript, normalised."""
        tokens = greedy_tokens(log_probs.argmax(1))
        return normalise_transcript(self.alphabet.decode(tokens))

    def find_units(
        self, log_probs: NDArray[np.float32], transcript: str
    ) -> list[tuple[range, range]]:
        """Where each output unit, such as a character, of a transcript lies.

        Args:
            log_probs: (T, C) of one clip.
            transcript: normalised.

        Returns:
            For each unit its characters in the transcript and its frames; the space before a word
            counts with the word's first unit, or is a unit of its own.

        Raises:
            ValueError: it is too long for the clip.
        """
        if not transcript:
            return []
        units = self.alphabet.encode_spans(transcript)
        frames = align(log_probs, [token for token, _, _ in units])
        return [(range(*span), held) for (_, *span), held in zip(units, frames, strict=True)]

    def find_words(
        self, log_probs: NDArray[np.float32], transcript: str
    ) -> list[tuple[str, range]]:
        """The words of a normalised transcript, each with the frames from its first character to
        its last; otherwise like `find_units`.
        """
        units = self.find_units(log_probs, transcript)
        found: list[tuple[str, range]] = []
        start = number = 0
        for word in transcript.split():
            # A unit that is nothing but the space before the word is no part of it.
            while units[number][0].stop <= start:
                number += 1
            first = number
            while number + 1 < len(units) and units[number + 1][0].start < start + len(word):
                number += 1
            found.append((word, range(units[first][1].start, units[number][1].stop)))
            start += len(word) + 1
        return found

    def time_words(self, log_probs: Tensor, transcript: str) -> tuple[TimedWord, ...]:
        """The words of a clip with their times in seconds; see `find_words`."""
        return tuple(
            TimedWord(word, span.start / FRAME_RATE, span.stop / FRAME_RATE)
            for word, span in self.find_words(log_probs.cpu().numpy(), transcript)
        )


def readable(
    examples: Sequence[Example], encoder: Encoder | PretrainedEncoder
) -> dict[int, Example]:
    """What an encoder reads of the sound and the pictures of examples, by their place in the list;
    those of which it reads neither are left out.
    """
    read = {}
    for row, example in enumerate(examples):
        streams = {"audio", "video"} & set(encoder.reads)
        crops = SMALL_GREY if example.video is None else CropForm.of(example.video)
        if crops != encoder.crops and not encoder.any_crops:
            streams.discard("video")
        read[row] = replace(example.only(tuple(streams)), features={})
    return {row: example for row, example in read.items() if example.streams}


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
