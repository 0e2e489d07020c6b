"""Folders of `.csd` files: the streams of the CMU multimodal SDK, aligned to its labels.

A file holds one stream: video id -> features (T, D) and intervals (T, 2) in seconds; deployed files
have ids of segments, `video[3]`. The name of a file shows what it is (`CMU_MOSEI_COVAREP`, or the
root name the SDK deploys under, `FACET 4.2`). Labels are rows of sentiment, or of sentiment, happy,
sad, anger, surprise, disgust, fear; row i of a video is its segment `video[i]`. Source:
`dataset.py`, `cmu_mosei.py` and the README of CMU_MOSEI of
github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK.

As in the SDK a segment has every row that overlaps it by more than 1e-5 s. Unlike there, ids are
compared whole (the SDK removes 255224 with 25522), nothing is cut to the last 50 rows, and a
segment that lacks one stream is kept with the others.

With `words` every stream is first averaged over the words of the text stream, so that a segment has
one row a word in every stream: zeros where a stream has nothing during a word, as the SDK's
`impute` gives. A word belongs to the segments that the word itself overlaps, for all streams alike;
in the SDK each stream goes by the rows it averaged, and streams may end up a word apart.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.checks import Check, checksum, none_of
from mmembed.data.corpora.sentiment.corpus import PublishedCorpus, Segment, folds_of
from mmembed.data.corpora.sentiment.streams import Finite, widths, write_splits
from mmembed.data.feature_files import Features
from mmembed.data.folders import files_below
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.errors import DataError
from mmembed.features.intervals import averages, longer_than_nothing, overlapping

KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "labels": ("label",),
    "text": ("wordvectors", "glovevectors", "glove"),
    "audio": ("covarep", "opensmile"),
    "words": ("words",),
    "video": ("facet42", "facet41", "facet", "openface2", "openface"),
}
"""Parts of the names of files of each kind, letters and digits alone, the best one first."""

STREAMS: Final = ("text", "audio", "video")

SILENCES: Final = ("", "sp")

Sequences = dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]]
"""Video id -> features (T, D) and intervals (T, 2)."""


def convert_csd(
    corpus: PublishedCorpus, folder: Path, out: Path, words: bool = False
) -> tuple[list[Segment], list[Check]]:
    """Align the streams of a folder to its labels and write them; segments and checks.

    Raises:
        DataError: no labels, no stream, no words to average over, or labels of another width.
    """
    paths = _choose(folder)
    if "labels" not in paths or not set(STREAMS) & set(paths):
        raise DataError(
            str(folder),
            "missing",
            "needs the labels (such as CMU_MOSEI_Labels.csd) and a stream (such as "
            f"CMU_MOSEI_COVAREP.csd); found {', '.join(p.name for p in paths.values()) or 'none'}",
        )
    if words and "text" not in paths:
        raise DataError(
            str(folder), "missing", "has no word vectors (such as CMU_MOSEI_TimestampedWordVectors)"
        )
    finite = Finite()
    segments = _segments(corpus, paths["labels"])
    if "words" in paths:
        segments = _with_transcripts(segments, paths["words"])
    videos = {segment.video for segment in segments}
    sequences: dict[str, Sequences] = {}
    members: dict[str, dict[int, NDArray[np.int64]]] = {}
    checks: list[Check] = []
    for stream in (name for name in STREAMS if name in paths):  # text first: it has the words
        read = _read(paths[stream])
        checks += _stream_checks(stream, read, videos)
        if words:
            read = _over_words(stream, read, sequences.get("text"), finite)
        sequences[stream] = read
        members[stream] = dict(_members(segments, read))

    def features(n: int) -> Features:
        segment = segments[n]
        return {
            stream: finite(stream, segment.name, sequences[stream][segment.video][0][rows[n]])
            for stream, rows in members.items()
            if n in rows
        }

    written = write_splits(out, segments, features)
    found = {name: next(iter(read.values()))[0].shape[1] for name, read in sequences.items()}
    published = {
        stream: width
        for stream in found
        for name, width in corpus.csd_widths.items()
        if name in _simple_name(paths[stream])
    }
    unused = [
        str(p.relative_to(folder)) for p in files_below(folder, ".csd") if p not in paths.values()
    ]
    bare = [s.name for n, s in enumerate(segments) if not any(n in m for m in members.values())]
    checks = [
        *(checksum(path, None) for path in paths.values()),
        Check("files not used", str(len(unused)), items=tuple(unused)),
        *widths(found, published),
        *checks,
        *(
            Check(f"segments without {stream}", str(len(segments) - len(rows)))
            for stream, rows in members.items()
        ),
        Check("without transcript", str(sum(s.transcript is None for s in segments))),
        none_of("ids without media", bare, "left out"),
        *finite.checks(tuple(found)),
    ]
    return written, checks


def _members(
    segments: Sequence[Segment], sequences: Mapping[str, tuple[Any, NDArray[np.float64]]]
) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """The number of each segment that a stream has something of, and its rows in its video."""
    by_video: dict[str, list[int]] = defaultdict(list)
    for number, segment in enumerate(segments):
        by_video[segment.video].append(number)
    for video, numbers in by_video.items():
        if video not in sequences:
            continue
        _, times = sequences[video]
        intervals = np.array([(segments[n].start, segments[n].end) for n in numbers], np.float64)
        for number, rows in zip(numbers, overlapping(times, intervals), strict=True):
            if len(rows):
                yield number, rows


def _with_transcripts(segments: Sequence[Segment], path: Path) -> list[Segment]:
    """Segments with the words that overlap them."""
    from mmembed.data.untrusted.hdf5 import read_csd_words  # h5py comes with the extra `corpora`

    spoken = read_csd_words(path)
    found = list(segments)
    for number, rows in _members(segments, spoken):
        words = (spoken[segments[number].video][0][row] for row in rows)
        text = " ".join(word for word in words if word not in SILENCES)
        found[number] = replace(segments[number], transcript=text or None)
    return found


def _simple_name(path: Path) -> str:
    return re.sub("[^a-z0-9]", "", path.stem.lower())


def _choose(folder: Path) -> dict[str, Path]:
    """Kind -> the file that is read for it: of several the best known, then the shortest name."""
    chosen = {}
    for kind, parts in KINDS.items():
        ranked = [
            (rank, len(path.stem), path)
            for path in files_below(folder, ".csd")
            for rank, part in enumerate(parts)
            if part in _simple_name(path)
        ]
        if ranked:
            chosen[kind] = min(ranked)[2]
    return chosen


def _read(path: Path) -> Sequences:
    """A stream by video; segments `video[3]` are put together again."""
    parts: dict[str, list[tuple[NDArray[np.float32], NDArray[np.float64]]]] = defaultdict(list)
    from mmembed.data.untrusted.hdf5 import read_csd  # h5py comes with the extra `corpora`

    for key, both in read_csd(path)[1].items():
        parts[_split_key(key)[0]].append(both)
    if not parts:
        raise DataError(str(path), "empty", "holds no features")
    if len({values.shape[1] for group in parts.values() for values, _ in group}) > 1:
        raise DataError(str(path), "csd", "holds features of more than one width")
    return {
        # A video that is whole stays where it is, in the file that its reader left.
        video: group[0]
        if len(group) == 1
        else (np.concatenate([v for v, _ in group]), np.concatenate([t for _, t in group]))
        for video, group in parts.items()
    }


def _over_words(
    stream: str, sequences: Sequences, words: Sequences | None, finite: Finite
) -> Sequences:
    """One row a word; without `words` the stream is that of the words."""
    if words is None:
        lasting = {video: longer_than_nothing(times) for video, (_, times) in sequences.items()}
        return {v: (x[lasting[v]], times[lasting[v]]) for v, (x, times) in sequences.items()}
    return {
        video: (averages(finite(stream, video, values), times, words[video][1]), words[video][1])
        for video, (values, times) in sequences.items()
        if video in words
    }


def _split_key(key: str) -> tuple[str, str | None]:
    """`"video[3]"` -> `("video", "3")`; a video that is whole has no number."""
    match = re.fullmatch(r"(.*)\[(\d+)\]", key)
    return (match[1], match[2]) if match else (key, None)


def _segments(corpus: PublishedCorpus, path: Path) -> list[Segment]:
    segments = []
    from mmembed.data.untrusted.hdf5 import read_csd  # h5py comes with the extra `corpora`

    for key, (labels, times) in read_csd(path)[1].items():
        video, clip = _split_key(key)
        if labels.ndim != 2 or labels.shape[1] not in (1, 1 + len(EMOTIONS)):
            raise DataError(
                str(path),
                "labels",
                f"{key} has labels of shape {labels.shape}; known are rows of sentiment, or of "
                f"sentiment, {', '.join(EMOTIONS)}",
            )
        for number, (row, (start, end)) in enumerate(zip(labels.tolist(), times, strict=True)):
            segments.append(
                Segment(
                    video,
                    clip or str(number),
                    start=float(start),
                    end=float(end),
                    split=folds_of(corpus.name).get(video),
                    sentiment=None if np.isnan(row[0]) else row[0],
                    emotions=tuple(row[1:]) or None,
                )
            )
    if not segments:
        raise DataError(str(path), "empty", "holds no labels")
    return segments


def _stream_checks(stream: str, sequences: Sequences, labelled: set[str]) -> list[Check]:
    lasting = [t for _, times in sequences.values() for t in [times[longer_than_nothing(times)]]]
    durations = np.concatenate([t[:, 1] - t[:, 0] for t in lasting])
    rate = f"{1 / np.median(durations):.4g} Hz" if len(durations) else "none"
    rows = sum(len(times) for _, times in sequences.values())
    return [
        Check(f"rate of {stream}", rate, "the median row"),
        Check(f"rows of {stream} without duration", str(rows - len(durations))),
        none_of(f"videos without {stream}", sorted(labelled - set(sequences))),
        none_of(f"videos of {stream} without labels", sorted(set(sequences) - labelled)),
    ]
