"""The pickles of MMSA: `aligned_50.pkl`, `unaligned_50.pkl` and `unaligned_39.pkl`.

A mapping from train, valid and test to `id` ("video$_$clip"), `raw_text`, `text` (N, L, 768),
`text_bert` (N, 3, L: token ids, mask, segment ids), `audio` and `vision` (N, T, D),
`regression_labels` (CH-SIMS has `_T`, `_A` and `_V` too), and for streams that are not aligned to
words `audio_lengths` and `vision_lengths`. Source: the README and `data_loader.py` of
github.com/thuiar/MMSA, `dataset.py` of github.com/thuiar/MMSA-FET.

The pickles of MulT and MultiBench (`mosei_senti_data.pkl`, `mosi_data.pkl`) are read too: `labels`
(N, 1, 1), ids that are "video[clip]" or come with start and end, streams padded in front. Source:
public programs that read them; not checked against the originals.

The valid rows of a stream are given by its lengths if there are any, else by the mask of
`text_bert`. Where values lie beyond them (releases padded in front), or there are neither, all rows
from the first to the last that is not zero are valid. The published lengths were counted up to the
first row whose sum is 0 (`data/getLengths.py` of MMSA), at least 1, and its networks read that far:
where a row of zeros is within a stream, as where no face was found, ours has more rows than theirs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.checks import Check, checksum, none_of
from mmembed.data.corpora.sentiment.corpus import SPLITS, PublishedCorpus, Segment, folds_of
from mmembed.data.corpora.sentiment.streams import Finite, widths, write_splits
from mmembed.data.feature_files import Features
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.data.untrusted.pickles import read_pickle
from mmembed.errors import DataError

STREAMS: Final = {"text": "text", "audio": "audio", "video": "vision"}
SCORES: Final = {"sentiment_text": "T", "sentiment_audio": "A", "sentiment_video": "V"}
MASK: Final = 1  # row of text_bert

Split = Mapping[str, Any]


def convert_pickle(
    corpus: PublishedCorpus, path: Path, out: Path
) -> tuple[list[Segment], list[Check]]:
    """Write the features of a pickle, split by split; its segments and checks of them.

    Raises:
        DataError: not a pickle of MMSA, or one that may not be loaded.
    """
    loaded = read_pickle(path)
    if not isinstance(loaded, dict) or not any(str(name) in SPLITS for name in loaded):
        raise DataError(str(path), "pickle", "has no train, valid or test: not a pickle of MMSA")
    segments: list[Segment] = []
    counts = _Counts()
    for name in [name for name in loaded if str(name) in SPLITS]:
        data = loaded.pop(name)  # gigabytes
        try:
            segments += _convert_split(corpus, data, SPLITS[str(name)], out, counts)
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            what = f"{name} is not as MMSA has it: {error}"
            raise DataError(str(path), "pickle", what) from None
    checks = [
        checksum(path, corpus.checksums.get(path.name)),
        *widths(counts.widths, corpus.pickle_widths),
        *(Check(f"lengths of {name}", ", ".join(how)) for name, how in counts.lengths.items()),
        *(
            none_of(f"{name} beyond its length", counts.beyond.get(name, ()), "kept")
            for name in counts.widths
        ),
        *(Check(f"without {name}", str(counts.missing[name])) for name in counts.widths),
        none_of("ids without media", counts.without, "left out"),
        *counts.finite.checks(tuple(counts.widths)),
    ]
    return segments, checks


@dataclass
class _Counts:
    """What is counted over the splits."""

    finite: Finite = field(default_factory=Finite)
    widths: dict[str, int] = field(default_factory=dict)
    lengths: dict[str, dict[str, None]] = field(default_factory=dict)
    beyond: dict[str, list[str]] = field(default_factory=dict)
    missing: Counter[str] = field(default_factory=Counter)
    without: list[str] = field(default_factory=list)


def _convert_split(
    corpus: PublishedCorpus, data: Split, split: str | None, out: Path, counts: _Counts
) -> list[Segment]:
    segments = list(_segments(corpus, data, split))
    arrays: dict[str, tuple[NDArray[Any], NDArray[np.int64], str]] = {}
    for stream, theirs in STREAMS.items():
        if theirs not in data:
            continue
        values = np.asarray(data[theirs])
        if values.ndim != 3 or len(values) != len(segments):
            raise ValueError(f"{theirs} has shape {values.shape} for {len(segments)} ids")
        if counts.widths.setdefault(stream, values.shape[2]) != values.shape[2]:
            raise ValueError(f"{theirs} is {values.shape[2]} wide, {counts.widths[stream]} before")
        how, lengths = _lengths(data, stream, len(segments))
        counts.lengths.setdefault(stream, {})[how or "rows that are not zero"] = None
        arrays[stream] = values, lengths, how

    def features(n: int) -> Features:
        found = {}
        for stream, (values, lengths, how) in arrays.items():
            length = min(max(0, int(lengths[n])), values.shape[1])
            rows = slice(0, length)
            if values[n, length:].any():
                filled = np.flatnonzero(values[n].any(axis=1))
                rows = slice(int(filled[0]), int(filled[-1]) + 1)
            if how and rows != slice(0, length):
                counts.beyond.setdefault(stream, []).append(segments[n].name)
            if rows.stop > rows.start:
                found[stream] = counts.finite(stream, segments[n].name, values[n, rows])
            else:
                counts.missing[stream] += 1
        if not found:
            counts.without.append(segments[n].name)
        return found

    return write_splits(out, segments, features)


def _lengths(data: Split, stream: str, count: int) -> tuple[str, NDArray[np.int64]]:
    """Where the valid lengths of a stream come from, "" = nowhere, and what they are."""
    named = f"{STREAMS[stream]}_lengths"
    if named in data and len(data[named]) == count:
        return named, np.asarray(data[named], np.float64).astype(np.int64).reshape(count)
    if "text_bert" in data:
        mask = np.asarray(data["text_bert"])[:, MASK]
        steps = np.shape(data.get(STREAMS[stream], ()))[1:2]
        if steps == mask.shape[1:]:
            return "mask of text_bert", np.asarray(mask > 0).sum(axis=1)
    return "", np.zeros(count, np.int64)


def _segments(corpus: PublishedCorpus, data: Split, split: str | None) -> Iterator[Segment]:
    published = data.get("regression_labels", data.get("labels"))
    if "id" not in data or published is None:
        raise ValueError("it needs id and regression_labels")
    count = len(data["id"])
    labels = np.asarray(published, np.float64).reshape(count, -1)
    if labels.shape[1] not in (1, 1 + len(EMOTIONS)):
        raise ValueError(f"{labels.shape[1]} labels a segment; known are 1 and {1 + len(EMOTIONS)}")
    scores = {
        ours: values
        for ours, letter in SCORES.items()
        if (values := _numbers(data.get(f"regression_labels_{letter}"), count)) is not None
    }
    words = data.get("raw_text", [None] * count)
    for row, (name, (sentiment, *emotions), text) in enumerate(
        zip(data["id"], labels.tolist(), words, strict=True)
    ):
        yield replace(
            _named(corpus, [_text(part) for part in np.ravel(name)]),
            transcript=" ".join(_text(part) for part in np.ravel(text)).strip() or None,
            split=split,
            sentiment=None if np.isnan(sentiment) else sentiment,
            emotions=tuple(emotions) or None,
            scores={ours: float(x[row]) for ours, x in scores.items() if np.isfinite(x[row])},
        )


def _named(corpus: PublishedCorpus, parts: Sequence[str]) -> Segment:
    """A segment by its id: "video$_$clip", "video[clip]" or "video_clip", or with its times."""
    name, *times = parts
    start, end = map(float, times) if len(times) == 2 else (None, None)
    if match := re.fullmatch(r"(.+?)(?:\$_\$(.+)|\[(\d+)\])", name):
        return Segment(match[1], match[2] or match[3], start, end)
    if times and name in folds_of(corpus.name):  # a video's id, which may hold _ and a number too
        return Segment(name, times[0], start, end)
    if match := re.fullmatch(r"(.+)_(\d+)", name):
        return Segment(match[1], match[2], start, end)
    raise ValueError(f"id {name!r} is not of the form video$_$clip")


def _numbers(values: Sequence[Any] | None, count: int) -> NDArray[np.float64] | None:
    """Labels of one stream; releases that have none hold empty strings or nothing."""
    try:
        return np.asarray(values, np.float64).reshape(count)
    except (ValueError, TypeError):
        return None


def _text(value: object) -> str:
    """A string that may come as bytes, or from Python 2, whose UTF-8 shows."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    text = "" if value is None else str(value)
    try:
        return text.encode("latin1").decode()
    except UnicodeError:
        return text
