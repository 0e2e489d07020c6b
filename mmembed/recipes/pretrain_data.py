"""What a pre-training run learns from its shards first: items, vocabularies, speakers."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.data.dataset import Examples, Meta
from mmembed.data.item import Item, to_item
from mmembed.data.locations import SHARDS
from mmembed.data.sampler import EpochPlan, draw, plan_epoch
from mmembed.embedder.card import UNSTATED
from mmembed.encoder import FRAME_RATE
from mmembed.errors import UsageError
from mmembed.features.text import Vocabulary, normalise_transcript
from mmembed.io.remote import as_url
from mmembed.losses.ctc import ctc_steps_needed
from mmembed.recipes.pretrain import DataConfig


@dataclass(frozen=True)
class TrainingCorpus:
    """The training part of a run's shards.

    Attributes:
        train: training examples.
        vocabulary: pieces of the text stream, learned from their transcripts.
        alphabet: units of speech recognition, likewise.
        speakers: name -> class id, in alphabetical order.
        lengths: clock frames (25 Hz) of each example.
        impossible: keys whose transcript is too long for CTC; they train without it.
        labelled: target -> training examples that have it, and what it is recognised in.
    """

    train: Examples
    vocabulary: Vocabulary
    alphabet: Vocabulary
    speakers: dict[str, int]
    lengths: NDArray[np.int32]
    impossible: list[str]
    labelled: dict[str, int]
    config: DataConfig

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each folder of shards, each another one."""
        return corpus_names(self.config.shards)

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

    def test_set(self, split: str) -> SpeechTests:
        """The examples of a split; none of them was trained on."""
        examples = Examples(
            map(Path, self.config.shards),
            lambda found: found["split"] == split and _allowed(found, self.config),
        )
        return SpeechTests(examples, self)


@dataclass(frozen=True)
class SpeechTests:
    """A split of a corpus, read one by one; a `mmembed.recipes.evaluation.TestUtterances`."""

    examples: Examples
    corpus: TrainingCorpus

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(N, 3) which of `STREAMS` each has, of those that the run reads."""
        return _present(self.examples, self.corpus.config.streams)

    def read(self, number: int) -> tuple[Item, str]:
        """An example in tensors and its normalised transcript."""
        corpus, example = self.corpus, self.examples[number]
        seen = example.only(corpus.config.streams)
        item = to_item(seen, corpus.vocabulary, corpus.alphabet, corpus.speakers)
        return item, normalise_transcript(example.utterance.transcript or "")


def open_corpus(config: DataConfig) -> TrainingCorpus:
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
    if not known:
        raise UsageError(
            f"no transcript in {', '.join(config.shards)}: pre-training learns its vocabulary, and "
            "speech, from what is said in records of split train"
        )
    alphabet = Vocabulary.train(known, config.alphabet.size, config.alphabet.kind)
    lengths = _clock(train, config.streams)
    audio, video, text = _present(train, config.streams).T
    perceived = audio | video
    needed = np.array([ctc_steps_needed(alphabet.encode(t)) for t in transcripts], dtype=np.int64)
    impossible = perceived & (needed > lengths)
    spoken = perceived & (needed > 0) & ~impossible
    named = perceived & (train.texts("speaker").fill_null("").to_numpy() != "")
    read = text if config.augmentation.mask_text > 0 else np.zeros_like(text)
    return TrainingCorpus(
        train=train,
        vocabulary=Vocabulary.train(known, config.vocabulary.size, config.vocabulary.kind),
        alphabet=alphabet,
        speakers={name: number for number, name in enumerate(_names(train))},
        lengths=lengths,
        impossible=[train.key(index) for index in np.flatnonzero(impossible).tolist()],
        labelled={
            target: int(found.sum())
            for target, found in (("transcript", spoken), ("speaker", named), ("masked_text", read))
        },
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


def _present(examples: Examples, streams: Sequence[str]) -> NDArray[np.bool_]:
    """(N, 3) which of `STREAMS` each example has, of those that are read."""
    columns = [(examples.numbers(f"lengths.{s}") > 0) & (s in streams) for s in STREAMS]
    return np.stack(columns, axis=1)


def _clock(examples: Examples, streams: Sequence[str]) -> NDArray[np.int32]:
    """Clock frames of each: those of its sound, else of its pictures, else of its text."""
    audio, video, text = (examples.numbers(f"lengths.{s}") * (s in streams) for s in STREAMS)
    frames = np.where(audio > 0, -(-audio // 4), np.where(video > 0, video, text))
    return frames.astype(np.int32)


def corpus_names(folders: Sequence[str]) -> tuple[str, ...]:
    """A name for each folder of shards: of the prepared folder that it lies in, with as many of the
    folders around it as tell it from the others.
    """
    paths = [_parts(folder) for folder in folders]
    names = []
    for number, parts in enumerate(paths):
        others = [other for other in paths[:number] + paths[number + 1 :] if other != parts]
        size = 1
        while size < len(parts) and any(other[-size:] == parts[-size:] for other in others):
            size += 1
        name = "/".join(parts[-size:])
        again = paths[:number].count(parts)  # the same folder a second time
        names.append(f"{name} ({again + 1})" if again else name)
    return tuple(names)


def _parts(folder: str) -> tuple[str, ...]:
    """The folders of a path or URL, the last one the prepared folder."""
    place = folder if as_url(folder) else os.path.abspath(folder)
    parts = tuple(part for part in place.split("/") if part)
    return parts[:-1] if len(parts) > 1 and parts[-1] == SHARDS else parts or (folder,)


def describe_data(corpus: TrainingCorpus) -> list[dict[str, Any]]:
    """What is trained on, for the model card: a row for each folder of shards, with its name,
    utterances, speakers, hours, and how many utterances have which language and licence.
    """
    found, first = [], 0
    for name, size in zip(corpus.names, corpus.train.sizes, strict=True):
        languages, licences, speakers = Counter[str](), Counter[str](), set[str]()
        for index in range(first, first + size):
            row = corpus.train.utterance(index)
            languages[row.language or UNSTATED] += 1
            licences[row.licence or UNSTATED] += 1
            speakers |= {row.speaker} if row.speaker else set()
        hours = float(corpus.lengths[first : first + size].sum()) / FRAME_RATE / 3600
        found.append(
            {
                "name": name,
                "utterances": size,
                "speakers": len(speakers),
                "hours": round(hours, 4),
                "languages": dict(sorted(languages.items())),
                "licences": dict(sorted(licences.items())),
            }
        )
        first += size
    return found
