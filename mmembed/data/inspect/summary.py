"""What a corpus holds, counted row by row: nothing but numbers and names is kept."""

from __future__ import annotations

import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.batch import STREAMS, subset_name
from mmembed.data.feature_files import SUFFIX
from mmembed.data.locations import FAILED, Json, Location, Progress
from mmembed.data.manifest.utterance import EMOTIONS, Labels, Utterance
from mmembed.data.stored_rows import StoredMember, StoredRow, read_rows
from mmembed.errors import DataError
from mmembed.io.json import parse_json

SAMPLES: Final = 24  # faces and transcripts that are kept
EXAMPLES: Final = 3  # repeats that are named
NO_SPLIT: Final = "without split"
NONE_PRESENT: Final = "none of them"
NOT_LOOKED_AT: Final = "not looked at yet"
_FEATURE_ROW: Final = SUFFIX + "#"


@dataclass
class Range:
    """Numbers of which only count, extremes and mean are wanted."""

    count: int = 0
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0

    def add(self, value: float) -> None:
        self.count += 1
        self.low, self.high = min(self.low, value), max(self.high, value)
        self.total += value

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else np.nan


@dataclass
class Vectors:
    """Precomputed features of one stream, or embeddings.

    Attributes:
        widths: D -> how many utterances.
        steps: of all utterances.
        not_finite: values that are NaN or infinite.
        spoilt: utterances that hold such values.
    """

    widths: Counter[int] = field(default_factory=Counter)
    steps: int = 0
    not_finite: int = 0
    spoilt: int = 0

    def add(self, values: NDArray[Any]) -> None:
        self.widths[values.shape[-1]] += 1
        self.steps += len(values) if values.ndim > 1 else 1
        bad = values.size - int(np.isfinite(values).sum())
        self.not_finite += bad
        self.spoilt += bad > 0


@dataclass
class Repeats:
    """Things that occur again.

    Attributes:
        count: how often something came that had been there before.
        examples: (first key, key) of the first few.
    """

    count: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)
    _first: dict[int, str] = field(default_factory=dict)  # by hash: 64 bits tell a corpus apart

    def add(self, what: Hashable, key: str) -> None:
        first = self._first.setdefault(hash(what), key)
        if first is not key:
            self.found(first, key)

    def found(self, first: str, key: str) -> None:
        self.count += 1
        if len(self.examples) < EXAMPLES:
            self.examples.append((first, key))


class Sample:
    """A seeded choice of a few among many that come one by one (reservoir sampling)."""

    def __init__(self, size: int, seed: int) -> None:
        self.items: list[Any] = []
        self._size, self._seen, self._random = size, 0, random.Random(seed)

    def add(self, item: Any) -> None:
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self.items[place] = item


@dataclass
class Summary:
    """The numbers of one place; counters count utterances.

    Attributes:
        place: what was looked at.
        seed: of the samples.
        count: utterances.
        splits: split -> utterances, `NO_SPLIT` where none is named.
        hours: split -> hours of utterances whose length is known.
        seconds: known lengths.
        speakers: speaker -> split -> utterances.
        dialogues: dialogue -> split -> utterances.
        torn: media files of which more than one split holds parts.
        streams: "audio+video", ..., "none" or `NOT_LOOKED_AT` -> utterances.
        languages, licences, faces, categories: name -> utterances.
        present: emotion, or `NONE_PRESENT` -> utterances; several may hold of one.
        asked: utterances that were asked which emotions are present.
        sentiment: all scores in [-3, 3].
        emotions: name -> intensities in [0, 3].
        emotions_present: name -> utterances with an intensity above 0.
        scores: name -> other numbers.
        words: length of each transcript.
        vocabulary: word -> how often.
        vectors: stream -> precomputed features, or "pooled".
        same_media: the same times of the same file.
        same_words: the same words by the same speaker, where both are known.
        same_sound: the same sound features, compared byte by byte.
        broken: reason -> rows that cannot be used or were left out.
        failures: the first few as (key, message).
        texts: sample of (key, transcript).
        crops: sample of (key, where the face crops lie).
    """

    place: Location
    seed: int = 0
    count: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    hours: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    speakers: dict[str, Counter[str]] = field(default_factory=dict)
    dialogues: dict[str, Counter[str]] = field(default_factory=dict)
    torn: set[str] = field(default_factory=set)
    streams: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    faces: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    asked: int = 0
    sentiment: array[float] = field(default_factory=lambda: array("d"))
    emotions: dict[str, Range] = field(default_factory=lambda: {name: Range() for name in EMOTIONS})
    emotions_present: Counter[str] = field(default_factory=Counter)
    scores: defaultdict[str, Range] = field(default_factory=lambda: defaultdict(Range))
    words: array[int] = field(default_factory=lambda: array("l"))
    vocabulary: Counter[str] = field(default_factory=Counter)
    vectors: defaultdict[str, Vectors] = field(default_factory=lambda: defaultdict(Vectors))
    same_media: Repeats = field(default_factory=Repeats)
    same_words: Repeats = field(default_factory=Repeats)
    same_sound: Repeats = field(default_factory=Repeats)
    broken: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    _split_of: dict[str, str] = field(default_factory=dict)
    _sounds: dict[tuple[int, int], tuple[str, StoredMember]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.texts = Sample(SAMPLES, self.seed)
        self.crops = Sample(SAMPLES, self.seed)

    def add(self, row: StoredRow) -> None:
        utterance = row.utterance
        self.count += 1
        split = utterance.split or NO_SPLIT
        self.splits[split] += 1
        if row.seconds is not None:
            self.seconds.append(row.seconds)
            self.hours[split] += row.seconds / 3600
        for held, name in (
            (self.speakers, utterance.speaker),
            (self.dialogues, utterance.dialogue),
        ):
            if name is not None:
                held.setdefault(name, Counter())[split] += 1
        self.streams[_streams(row.streams)] += 1
        for counter, value in (
            (self.languages, utterance.language),
            (self.licences, utterance.licence),
            (self.faces, row.face),
        ):
            if value is not None:
                counter[value] += 1
        self._add_labels(utterance.labels)
        self._add_source(utterance)
        if row.text:
            words = row.text.split()
            self.words.append(len(words))
            self.vocabulary.update(words)
            self.texts.add((utterance.key, utterance.transcript or row.text))
        for name, values in row.vectors.items():
            self.vectors[name].add(values)
        if row.video is not None:
            self.crops.add((utterance.key, row.video))
        self._add_repeats(row)

    def fail(self, key: str, reason: str, message: str) -> None:
        self.broken[reason] += 1
        if len(self.failures) < SAMPLES:
            self.failures.append((key, message))

    def _add_labels(self, labels: Labels) -> None:
        if labels.category is not None:
            self.categories[labels.category] += 1
        if labels.present is not None:
            self.asked += 1
            self.present.update(set(labels.present) or {NONE_PRESENT})
        if labels.sentiment is not None:
            self.sentiment.append(labels.sentiment)
        for name, value in zip(EMOTIONS, labels.emotions or (), strict=False):
            if value is not None:
                self.emotions[name].add(value)
                self.emotions_present[name] += value > 0
        for name, value in labels.scores.items():
            self.scores[name].add(value)

    def _add_source(self, utterance: Utterance) -> None:
        split, media = _apart(utterance.split), utterance.media
        if split == NO_SPLIT or media is None or _FEATURE_ROW in media:
            return
        if self._split_of.setdefault(media, split) != split:
            self.torn.add(media)

    def _add_repeats(self, row: StoredRow) -> None:
        utterance = row.utterance
        if utterance.media is not None:
            self.same_media.add((utterance.media, utterance.start, utterance.end), utterance.key)
        if row.text and utterance.speaker is not None:
            self.same_words.add((utterance.speaker, row.text), utterance.key)
        if row.audio is not None:
            _, _, size, checksum = row.audio.member
            key, first = self._sounds.setdefault((size, checksum), (utterance.key, row.audio))
            # 32 bits of checksum are few for a large corpus, so the bytes have the last word.
            if first is not row.audio and first.same_bytes(row.audio):
                self.same_sound.found(key, utterance.key)


def summarise(
    place: Location, seed: int = 0, on_progress: Progress = lambda done, of: None
) -> Summary:
    """Count what a place holds.

    Raises:
        DataError: a manifest is broken.
        CorruptError: a shard is damaged.
    """
    summary = Summary(place, seed)
    for row in read_rows(place, on_progress):
        if isinstance(row, DataError):
            summary.fail(row.item, row.reason, str(row))
        else:
            summary.add(row)
    for failure in _failures(place.path / FAILED):
        key = str(failure.get("key", failure.get("item")))
        summary.fail(key, str(failure.get("reason")), str(failure.get("message")))
    return summary


def in_several_splits(held: Mapping[str, Iterable[str]]) -> list[str]:
    """The names that occur in more than one of train, dev and test."""
    return sorted(
        name
        for name, splits in held.items()
        if len({_apart(split) for split in splits} - {NO_SPLIT}) > 1
    )


def _apart(split: str | None) -> str:
    """Held-out utterances are by speakers of the training split, and said to be."""
    return "train" if split == "heldout" else split or NO_SPLIT


def _streams(streams: Iterable[str] | None) -> str:
    if streams is None:
        return NOT_LOOKED_AT
    held = [name for name in STREAMS if name in streams]
    return subset_name(held) if held else "none"


def _failures(path: Path) -> Iterable[Json]:
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                try:
                    value = parse_json(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    yield value
