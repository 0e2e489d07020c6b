"""Vowels as they are spoken in two corpora: what layers of an encoder are compared by.

A recogniser, the encoder's own or another one, says when each letter of a known transcript is
spoken; of a letter that is a vowel, every layer is averaged over its steps. Letters stand for
vowels as spelling has them: one "a" for all its sounds, and languages share the letters that they
share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jiwer
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmembed.data.example import Example, batches
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.embedder import Embedder
from mmembed.embedder.folder import HEAD
from mmembed.embedder.recogniser import frames_of
from mmembed.encoder import FRAME_RATE
from mmembed.errors import DataError, UsageError
from mmembed.features.text import normalise_transcript
from mmembed.metrics.similarity import layer_similarity, matched_means

VOWELS: Final = frozenset("aeiouyàáâäãåæèéêëìíîïòóôöõøœùúûüýıαεηιουωаеёиоуыэюя")  # noqa: RUF001

Spoken = Sequence[tuple[str, NDArray[np.float32]]]


@dataclass(frozen=True)
class Vowels:
    """The vowels of a corpus.

    Attributes:
        spoken: key of a clip -> (vowel, (L, D) its mean in the clip) of each that occurs there.
        error_rate: of the letters that the recogniser writes by itself, all clips together. Near 1
            it has learned nothing, and the positions of letters mean nothing.
    """

    spoken: dict[str, Spoken]
    error_rate: float


def read_vowels(
    embedder: Embedder,
    folder: str,
    streams: Sequence[str],
    layers: Sequence[str],
    keys: Sequence[str],
) -> Vowels:
    """Find the vowels of some clips.

    Args:
        embedder: of the vectors; its listener's recogniser finds letters, else its own.
        folder: prepared shards, or media as for `mmembed extract`, with the clips' transcripts.
        streams: those of the vectors.
        layers: names of the L layers, none of text.
        keys: of the clips; others are passed over, and so are those without a transcript that fits.

    Raises:
        UsageError: the encoder has no recogniser, a layer is of text, or no clip has a vowel.
        DataError: a clip cannot be read.
    """
    listening = embedder.listening
    if listening is None:
        raise UsageError(
            f"--encoder: no recogniser, so no vowels; name one by --recogniser ({HEAD})"
        )
    recogniser = listening.recogniser
    assert recogniser is not None
    if "text" in streams:
        raise UsageError("vowels: words have no times; use vectors of audio and video alone")
    wanted = set(keys)
    sources = [s for s in open_sources([Path(folder)], tuple(streams)) if s.key in wanted]
    spoken: dict[str, Spoken] = {}
    transcripts: list[str] = []
    hypotheses: list[str] = []

    def locate(examples: Sequence[Example]) -> None:
        output = embedder.hidden(examples)
        steps = [output.layers[name].split() for name in layers]
        for row, log_probs in enumerate(listening.hear(examples)):
            transcript = normalise_transcript(examples[row].utterance.transcript or "")
            if log_probs is None:
                continue
            try:
                units = recogniser.find_units(log_probs.cpu().numpy(), transcript)
            except ValueError:  # more letters than frames
                continue
            transcripts.append(transcript)
            hypotheses.append(recogniser.transcribe(log_probs))
            times: dict[str, list[TimedWord]] = {}
            for characters, frames in units:
                letter = transcript[characters.start : characters.stop].strip()
                if letter in VOWELS:
                    time = frames.start / FRAME_RATE, frames.stop / FRAME_RATE
                    times.setdefault(letter, []).append(TimedWord(letter, *time))
            parts = {name: each[row] for name, each in zip(layers, steps, strict=True)}
            spoken[examples[row].key] = [
                (vowel, _means(embedder, parts, said)) for vowel, said in times.items()
            ]

    with torch.no_grad():
        for examples in batches(_transcribed(embedder.decoder.load(sources), streams)):
            locate(examples)
    if not any(spoken.values()):
        raise UsageError(f"{folder}: none of the clips has a transcript with a vowel")
    return Vowels(spoken, float(jiwer.cer(transcripts, hypotheses)))


def _means(
    embedder: Embedder, layers: Mapping[str, Tensor], times: Sequence[TimedWord]
) -> NDArray[np.float32]:
    """(L, D): the mean of each layer over some times; zeros behind the narrower layers."""
    width = max(steps.shape[1] for steps in layers.values())
    means = []
    for name, steps in layers.items():
        rate = embedder.encoder.layer_rate(name)
        at = [step for time in times for step in frames_of(time, rate, len(steps))]
        mean = steps[at].float().mean(0)
        means.append(F.pad(mean, (0, width - len(mean))))
    return torch.stack(means).cpu().numpy()


def _transcribed(
    loaded: Iterable[Example | DataError], streams: Sequence[str]
) -> Iterator[Example]:
    """The examples that have a transcript, with these streams alone."""
    for example in loaded:
        if isinstance(example, DataError):
            raise example
        if example.utterance.transcript and {*streams} & {*example.streams}:
            yield example.only(tuple(streams))


def vowel_similarity(
    source: Vowels, target: Vowels, source_keys: Sequence[str], target_keys: Sequence[str]
) -> NDArray[np.float64]:
    """(L, L) linear CKA of source and target layers over the vowels that both sets of clips have.

    Raises:
        UsageError: they share less than two.
    """
    sides = [
        [one for key in keys for one in vowels.spoken.get(key, ())]
        for vowels, keys in ((source, source_keys), (target, target_keys))
    ]
    try:
        _, x, y = matched_means(*sides)
    except ValueError as error:
        raise UsageError(f"vowels: {error}") from None
    return layer_similarity(x, y)
