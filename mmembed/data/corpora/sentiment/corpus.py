"""What is published about a sentiment corpus, and its segments on their way to a manifest.

The official folds of CMU-MOSEI and CMU-MOSI are in `corpora/folds`: the video ids of
`cmu_mosei_std_folds.py` and `cmu_mosi_std_folds.py` of the CMU multimodal SDK. CH-SIMS is split by
segment, in its own files.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Final

from mmembed.data.checks import Check, compare, none_of
from mmembed.data.manifest.utterance import SENTIMENT_LIMITS, Labels, Utterance, portable_key

FOLDS: Final = ("train", "dev", "test")

SPLITS: Final = {
    **dict.fromkeys(("train", "0"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation", "1"), "dev"),
    **dict.fromkeys(("test", "2"), "test"),
    **dict.fromkeys(("", "3", "nan", "none"), None),
}
"""What releases call the folds; the numbers are those of `CMU_MOSEI_Labels.csv` of s3prl."""

Counts = Mapping[str, int]
"""Fold -> segments."""


@dataclass(frozen=True)
class PublishedCorpus:
    """What is published about a corpus.

    Attributes:
        name: the first part of its keys, and of its folds' file.
        title: as its authors write it.
        language: ISO 639-1.
        licence: a note for every row.
        limit: sentiment lies in [-limit, limit].
        counts: segments of each fold.
        pickle_counts: the same for MMSA's pickles, where they differ.
        pickle_widths: of MMSA's streams.
        csd_widths: part of the name of a `.csd` -> its width.
        checksums: file of MMSA -> its SHA-256.
    """

    name: str
    title: str
    language: str
    licence: str
    limit: float
    counts: Counts
    pickle_widths: Mapping[str, int]
    pickle_counts: Counts | None = None
    csd_widths: Mapping[str, int] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)


@cache
def folds_of(name: str) -> dict[str, str]:
    """Video id -> official fold of a corpus; {} for one that is not split by video."""
    path = files("mmembed.data.corpora") / "folds" / f"{name}.json"
    if not path.is_file():
        return {}
    folds = json.loads(path.read_text(encoding="utf-8"))
    return {video: fold for fold, videos in folds.items() for video in videos.split()}


@dataclass(frozen=True)
class Segment:
    """One labelled stretch of a video, as a release describes it.

    Attributes:
        video: its id; ids may be the beginnings of others, so they are only ever compared whole.
        clip: its number within the video, as written by the release.
        start: seconds into the video, None = unknown.
        end: seconds, None = unknown.
        transcript: or None.
        split: one of `FOLDS` or None, as the release says; "?" = it does not mention folds.
        sentiment: or None.
        emotions: in the order of `EMOTIONS`, or None.
        category: or None.
        scores: further numbers.
        media: as in `Utterance`.
    """

    video: str
    clip: str
    start: float | None = None
    end: float | None = None
    transcript: str | None = None
    split: str | None = "?"
    sentiment: float | None = None
    emotions: tuple[float, ...] | None = None
    category: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    media: str | None = None

    @property
    def name(self) -> str:
        """As the SDK writes it: `video[3]`."""
        return f"{self.video}[{self.clip}]"


def to_rows(
    corpus: PublishedCorpus, segments: Sequence[Segment], counts: Counts | None = None
) -> tuple[list[Utterance], list[Check]]:
    """Manifest rows of segments, and checks of them.

    The first of several segments of one name is kept. Labels out of range become unknown, times
    before the start of the video become 0.

    Args:
        corpus: they are of.
        segments: in the order wanted.
        counts: published segments per fold of this form; None = those of the corpus.
    """
    first: dict[str, Segment] = {}
    for segment in segments:
        first.setdefault(segment.name, segment)
    unique = list(first.values())
    repeated = [n for n, count in Counter(s.name for s in segments).items() if count > 1]
    backwards = [s.name for s in unique if not _lasts(s)]
    lasting = [s for s in unique if _lasts(s)]
    folds = folds_of(corpus.name)
    assigned = [replace(s, split=folds.get(s.video)) if s.split == "?" else s for s in lasting]
    found = Counter(segment.split for segment in assigned)
    counts = counts or corpus.counts
    checks = [
        *(compare(f"segments in {fold}", found[fold], counts[fold]) for fold in FOLDS),
        Check("segments in no fold", str(found[None])),
        Check("videos", str(len({segment.video for segment in assigned}))),
        none_of("duplicate ids", repeated, "the first of each kept"),
    ]
    if folds:
        other = [s.name for s in lasting if s.split not in ("?", folds.get(s.video))]
        note = "the file's own folds kept"
        checks.append(none_of("splits other than the official folds", other, note))
    checks += [
        none_of(
            f"sentiment outside [{-corpus.limit:g}, {corpus.limit:g}]",
            [s.name for s in assigned if not _within(s.sentiment, -corpus.limit, corpus.limit)],
            "taken as unknown",
        ),
        none_of(
            "emotions outside [0, 3]",
            [s.name for s in assigned if not all(_within(x, 0, 3) for x in s.emotions or ())],
            "taken as unknown",
        ),
        Check("without sentiment", str(sum(s.sentiment is None for s in assigned))),
        Check("without emotions", str(sum(s.emotions is None for s in assigned))),
    ]
    if any(s.start is not None for s in unique):
        early = [s.name for s in assigned if s.start is not None and s.start < 0]
        checks.append(none_of("start before the video", early, "set to 0"))
        checks.append(none_of("end not after start", backwards, "left out"))
    return [_to_row(corpus, segment) for segment in assigned], checks


def _to_row(corpus: PublishedCorpus, segment: Segment) -> Utterance:
    limit = corpus.limit
    valid = segment.emotions is not None and all(_within(x, 0, 3) for x in segment.emotions)
    return Utterance(
        key=portable_key(f"{corpus.name}-{segment.video}-{segment.clip}"),
        media=segment.media,
        start=max(0.0, segment.start or 0.0),
        end=segment.end,
        transcript=segment.transcript,
        language=corpus.language,
        dialogue=f"{corpus.name}-{segment.video}",
        split=segment.split,
        licence=corpus.licence,
        labels=Labels(
            sentiment=segment.sentiment if _within(segment.sentiment, -limit, limit) else None,
            emotions=segment.emotions if valid else None,
            category=segment.category,
            scores=segment.scores,
            sentiment_limit=None if limit == SENTIMENT_LIMITS[0] else limit,
        ),
    )


def _lasts(segment: Segment) -> bool:
    start, end = segment.start or 0.0, segment.end
    return math.isfinite(start) and (end is None or max(0.0, start) < end < math.inf)


def _within(value: float | None, low: float, high: float) -> bool:
    return value is None or (math.isfinite(value) and low <= value <= high)
