"""What a pre-training run learns from its shards first: items, vocabularies, speakers."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.data.collate import Item, to_item
from mmembed.data.dataset import Examples, Meta
from mmembed.data.places import SHARDS
from mmembed.data.sampling import EpochPlan, draw, plan_epoch
from mmembed.embedder.card import UNSTATED
from mmembed.encoder import FRAME_RATE
from mmembed.errors import UsageError
from mmembed.features.text import Vocabulary, normalise_transcript
from mmembed.losses import ctc_steps_needed
from mmembed.recipes.pretrain import DataConfig


@dataclass(frozen=True)
class Corpus:
    """The training part of a run's shards.

    Attributes:
        train: training examples.
        vocabulary: pieces of the text stream, learned from their transcripts.
        alphabet: units of speech recognition, likewise.
        speakers: name -> class id, in alphabetical order.
        lengths: clock frames (25 Hz) of each example.
        impossible: keys whose transcript is too long for CTC; they train without it.
    """

    train: Examples
    vocabulary: Vocabulary
    alphabet: Vocabulary
    speakers: dict[str, int]
    lengths: NDArray[np.int32]
    impossible: list[str]
    config: DataConfig

    def plan(self, *, seed: int, epoch: int) -> EpochPlan:
        """The global batches of an epoch."""
        drawn = None
        if self.config.weights:
            drawn = draw(self.train.sizes, self.config.weights, seed=seed, epoch=epoch)
        return plan_epoch(
            self.lengths,
            self.config.frames,
            seed=seed,
            epoch=epoch,
            pool=self.config.pool,
            drawn=drawn,
        )

    def item(self, index: int) -> Item:
        """One training example in tensors."""
        example = self.train[index].only(self.config.streams)
        return to_item(example, self.vocabulary, self.alphabet, self.speakers)

    def evaluation(self, split: str) -> tuple[list[Item], list[str]]:
        """Items and reference transcripts of a split; none of them was trained on."""
        examples = Examples(
            map(Path, self.config.shards),
            lambda found: found["split"] == split and _allowed(found, self.config),
        )
        items, references = [], []
        for example in examples:
            seen = example.only(self.config.streams)
            items.append(to_item(seen, self.vocabulary, self.alphabet, self.speakers))
            references.append(normalise_transcript(example.utterance.transcript or ""))
        return items, references


def open_corpus(config: DataConfig) -> Corpus:
    """Read the indices of a run's shards.

    Raises:
        UsageError: no shards are named, nothing in them is for training, or a setting is senseless.
    """
    if not config.shards:
        raise UsageError("no training data: give --data.shards DIR [DIR ...]")
    if config.frames < 1 or config.pool < 0:
        raise UsageError(
            f"--data.frames {config.frames} must be 1 or more, --data.pool {config.pool} 0 or more"
        )
    if config.weights and len(config.weights) != len(config.shards):
        raise UsageError(
            f"{len(config.weights)} --data.weights for {len(config.shards)} --data.shards: "
            "give one a folder, or none"
        )
    if not all(0 < weight < math.inf for weight in config.weights):
        raise UsageError(f"--data.weights {config.weights}: each must be a number above 0")
    train = Examples(
        map(Path, config.shards),
        lambda found: found["split"] in ("train", None) and _allowed(found, config),
    )
    if not len(train):
        raise UsageError(
            f"nothing to train on in {', '.join(config.shards)}: no record of split train with "
            f"{' or '.join(config.streams)}"
        )
    transcripts = [normalise_transcript(t or "") for t in train.texts("transcript").to_pylist()]
    known = [transcript for transcript in transcripts if transcript]
    alphabet = Vocabulary.train(known, config.alphabet.size, config.alphabet.kind)
    lengths = _clock(train)
    needed = [ctc_steps_needed(alphabet.encode(t)) for t in transcripts]
    return Corpus(
        train=train,
        vocabulary=Vocabulary.train(known, config.vocabulary.size, config.vocabulary.kind),
        alphabet=alphabet,
        speakers={name: number for number, name in enumerate(_names(train))},
        lengths=lengths,
        impossible=[
            train.key(i) for i, (n, t) in enumerate(zip(needed, lengths, strict=True)) if n > t
        ],
        config=config,
    )


def _allowed(found: Meta, config: DataConfig) -> bool:
    streams = found["streams"]
    assert isinstance(streams, tuple)
    return found["speaker"] not in config.exclude_speakers and bool(
        set(streams) & set(config.streams)
    )


def _names(examples: Examples) -> list[str]:
    """The speakers, in alphabetical order."""
    return sorted(name for name in examples.texts("speaker").unique().to_pylist() if name)


def _clock(examples: Examples) -> NDArray[np.int32]:
    """Clock frames of each: those of its sound, else of its pictures, else of its text."""
    audio, video, text = (examples.numbers(f"lengths.{stream}") for stream in STREAMS)
    frames = np.where(audio > 0, -(-audio // 4), np.where(video > 0, video, text))
    return frames.astype(np.int32)


def describe_data(corpus: Corpus) -> list[dict[str, Any]]:
    """What is trained on, for the model card: a row for each folder of shards, with its name,
    utterances, hours, and how many utterances have which language and licence.
    """
    found, first = [], 0
    for folder, size in zip(corpus.config.shards, corpus.train.sizes, strict=True):
        languages, licences = Counter[str](), Counter[str]()
        for index in range(first, first + size):
            row = corpus.train.utterance(index)
            languages[row.language or UNSTATED] += 1
            licences[row.licence or UNSTATED] += 1
        hours = float(corpus.lengths[first : first + size].sum()) / FRAME_RATE / 3600
        parts = [part for part in folder.split("/") if part not in ("", SHARDS)]
        found.append(
            {
                "name": parts[-1] if parts else folder,
                "utterances": size,
                "hours": round(hours, 4),
                "languages": dict(sorted(languages.items())),
                "licences": dict(sorted(licences.items())),
            }
        )
        first += size
    return found
