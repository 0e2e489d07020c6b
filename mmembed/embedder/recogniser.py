"""The speech recogniser beside the encoder: what was said, and when."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mmembed.batch import Packed
from mmembed.ctc import align, greedy_tokens
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.encoder import FRAME_RATE
from mmembed.features.text import Vocabulary, normalise_transcript


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
