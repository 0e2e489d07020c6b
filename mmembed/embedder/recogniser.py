"""The speech recogniser beside the encoder: what was said, and when."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from mmembed.batch import Packed
from mmembed.config import Seconds
from mmembed.ctc import align, greedy_tokens
from mmembed.encoder import FRAME_RATE
from mmembed.features.text import BLANK, Vocabulary, normalise_transcript


@dataclass(frozen=True)
class Spoken:
    """A word and its frames."""

    text: str
    frames: range

    @property
    def start(self) -> Seconds:
        return self.frames.start / FRAME_RATE

    @property
    def end(self) -> Seconds:
        return self.frames.stop / FRAME_RATE


class Recogniser(nn.Module):
    """The CTC head of pre-training with its output units; it reads `EncoderOutput.audio_visual`.

    Attributes:
        alphabet: its classes.
    """

    def __init__(self, head: nn.Linear, alphabet: Vocabulary) -> None:
        super().__init__()
        if head.out_features != len(alphabet):
            raise ValueError(f"{head.out_features} classes for an alphabet of {len(alphabet)}")
        self.head = head
        self.alphabet = alphabet

    def forward(self, frames: Packed) -> Packed:
        """(N, D) to (N, C) log-probabilities of the letters."""
        return frames.with_values(self.head(frames.values).float().log_softmax(1))

    def transcribe(self, log_probs: Tensor) -> str:
        """(T, C) of one clip -> its greedy transcript, normalised."""
        tokens = greedy_tokens(log_probs.argmax(1), BLANK)
        return normalise_transcript(self.alphabet.decode(tokens))

    def find_pieces(
        self, log_probs: NDArray[np.float32], transcript: str
    ) -> list[tuple[range, range]]:
        """Where each piece of the alphabet, such as a letter, lies that a transcript is spelt with.

        Args:
            log_probs: (T, C) of one clip.
            transcript: normalised.

        Returns:
            For each piece its characters in the transcript and its frames; the space before a word
            counts with the word's first piece, or is a piece of its own.

        Raises:
            ValueError: it is too long for the clip.
        """
        if not transcript:
            return []
        pieces = self.alphabet.encode_spans(transcript)
        frames = align(log_probs, [token for token, _, _ in pieces], BLANK)
        return [(range(*span), held) for (_, *span), held in zip(pieces, frames, strict=True)]

    def find_words(self, log_probs: NDArray[np.float32], transcript: str) -> list[Spoken]:
        """The words of a normalised transcript, each with the frames from its first letter to its
        last; otherwise like `find_pieces`.
        """
        pieces = self.find_pieces(log_probs, transcript)
        found: list[Spoken] = []
        start = number = 0
        for word in transcript.split():
            # A piece that is nothing but the space before the word is no part of it.
            while pieces[number][0].stop <= start:
                number += 1
            first = number
            while number + 1 < len(pieces) and pieces[number + 1][0].start < start + len(word):
                number += 1
            found.append(Spoken(word, range(pieces[first][1].start, pieces[number][1].stop)))
            start += len(word) + 1
        return found
