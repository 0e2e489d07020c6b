"""What a pre-training run learns from its shards first: vocabularies, speakers, what there is."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.backbones.pretrained import Pretrained, recogniser_letters
from mmembed.backbones.text import TextTokenizer
from mmembed.data.dataset import Examples, Meta
from mmembed.data.frozen_layers import FrozenLayers
from mmembed.data.loader import SpeechItems
from mmembed.data.locations import SHARDS
from mmembed.data.sampler import EpochPlan, draw, plan_epoch
from mmembed.embedder.card import UNSTATED
from mmembed.encoder import FRAME_RATE
from mmembed.errors import UsageError
from mmembed.features.text import UNKNOWN, Vocabulary
from mmembed.features.video import SMALL_GREY
from mmembed.io.remote import as_url
from mmembed.losses import ctc_steps_needed
from mmembed.settings.pretrain import DataConfig


@dataclass(frozen=True)
class TrainingCorpus:
    """The training part of a run's shards.

    Attributes:
        train: training items.
        subwords: of the text stream: learned from their transcripts, or of a pretrained encoder.
        alphabet: output units of speech recognition: learned from their transcripts, or those of a
            pretrained recogniser.
        speakers: name -> class id, in alphabetical order.
        impossible: keys whose transcript is too long for CTC; they train without it.
        labelled: target -> training items that have it, and the streams it is recognised in.
        samples: whether audio is read as samples, for a pretrained encoder.
        layers: of the audio stream, where they were computed before.
    """

    train: SpeechItems
    subwords: Vocabulary | TextTokenizer
    alphabet: Vocabulary
    speakers: dict[str, int]
    impossible: list[str]
    labelled: dict[str, int]
    config: DataConfig
    samples: bool = False
    layers: FrozenLayers | None = None

    @cached_property
    def unknown_letters(self) -> int:
        """Training transcripts with letters that are none of the output units."""
        return sum(UNKNOWN in units for units in self.train.units.to_pylist())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for each folder of shards, each another one."""
        return corpus_names(self.config.shards)

    def plan(self, *, seed: int, epoch: int) -> EpochPlan:
        """The global batches of an epoch."""
        drawn = None
        if self.config.weights:
            sizes = self.train.examples.sizes
            drawn = draw(sizes, self.config.weights, seed=seed, epoch=epoch)
        return plan_epoch(
            self.train.frames,
            self.config.frames,
            seed=seed,
            epoch=epoch,
            pool=self.config.pool,
            drawn=drawn,
        )

    def test_set(self, split: str) -> SpeechItems:
        """The items of a split; none of them was trained on."""
        examples = _select(self.config, split)
        return SpeechItems(
            examples,
            self.config.streams,
            examples.transcripts(),
            self.subwords,
            self.alphabet,
            self.speakers,
            samples=self.samples,
            layers=self.layers,
        )


def open_corpus(
    config: DataConfig, pretrained: Mapping[str, Pretrained] | None = None
) -> TrainingCorpus:
    """Read the indices of a run's shards.

    Args:
        config: which they are.
        pretrained: stream -> its pretrained encoder; the text stream has its tokenizer.

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
    examples = _select(config, "train", None)
    if not len(examples):
        raise UsageError(
            f"nothing to train on in {', '.join(config.shards)}: no record of split train with "
            f"{' or '.join(config.streams)}"
        )
    if "video" in config.streams and "video" not in (pretrained or ()):
        examples.check_crops(SMALL_GREY)  # what our own front end reads
    transcripts = examples.transcripts()
    spoken = [transcript for transcript in transcripts if transcript]
    if not spoken:
        raise UsageError(
            f"no transcript in {', '.join(config.shards)}: pre-training learns its vocabulary, and "
            "speech, from what is said in records of split train"
        )
    if config.alphabet_of:
        alphabet = Vocabulary.of_letters(recogniser_letters(config.alphabet_of))
    else:
        alphabet = Vocabulary.train(spoken, config.alphabet.size, config.alphabet.kind)
    tokenizer = pretrained["text"].tokenizer if pretrained and "text" in pretrained else None
    subwords = tokenizer or Vocabulary.train(spoken, config.vocabulary.size, config.vocabulary.kind)
    samples = "audio" in (pretrained or ())
    layers = None
    if config.audio_layers:
        if pretrained is None or "audio" not in pretrained:
            raise UsageError("--data.audio-layers: the audio stream has no pretrained encoder")
        layers = FrozenLayers(config.audio_layers, pretrained["audio"].sha256)
    names = sorted(name for name in examples.texts("speaker").unique().to_pylist() if name)
    speakers = {name: number for number, name in enumerate(names)}
    train = SpeechItems(
        examples,
        config.streams,
        transcripts,
        subwords,
        alphabet,
        speakers,
        samples=samples,
        layers=layers,
    )

    audio, video, text = (train.lengths > 0).T
    perceived = audio | video
    needed = np.array(
        [ctc_steps_needed(units) for units in train.units.to_pylist()], dtype=np.int64
    )
    impossible = perceived & (needed > train.frames)
    named = perceived & (train.speakers >= 0)
    labelled = {
        "transcript": perceived & (needed > 0) & ~impossible,
        "speaker": named,
        "masked_text": text & (config.augmentation.mask_text > 0),
    }
    return TrainingCorpus(
        train=train,
        subwords=subwords,
        alphabet=alphabet,
        speakers=speakers,
        impossible=[examples.key(index) for index in np.flatnonzero(impossible).tolist()],
        labelled={target: int(found.sum()) for target, found in labelled.items()},
        config=config,
        samples=samples,
        layers=layers,
    )


def _select(config: DataConfig, *splits: str | None) -> Examples:
    """The records of these splits that a run may read."""

    def keep(found: Meta) -> bool:
        streams = found["streams"]
        assert isinstance(streams, tuple)
        return (
            found["split"] in splits
            and found["speaker"] not in config.exclude_speakers
            and bool(set(streams) & set(config.streams))
        )

    return Examples(map(Path, config.shards), keep)


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
    path = folder if as_url(folder) else os.path.abspath(folder)
    parts = tuple(part for part in path.split("/") if part)
    return parts[:-1] if len(parts) > 1 and parts[-1] == SHARDS else parts or (folder,)


def describe_data(corpus: TrainingCorpus) -> list[dict[str, Any]]:
    """What is trained on, for the model card: a row for each folder of shards, with its name,
    utterances, speakers, hours, and how many utterances have which language and licence.
    """
    found, first = [], 0
    for name, size in zip(corpus.names, corpus.train.examples.sizes, strict=True):
        languages, licences, speakers = Counter[str](), Counter[str](), set[str]()
        for index in range(first, first + size):
            row = corpus.train.examples.utterance(index)
            languages[row.language or UNSTATED] += 1
            licences[row.licence or UNSTATED] += 1
            speakers |= {row.speaker} if row.speaker else set()
        hours = float(corpus.train.frames[first : first + size].sum()) / FRAME_RATE / 3600
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
