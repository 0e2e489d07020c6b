"""Label files of CMU-MOSEI, CMU-MOSI and CH-SIMS, read by the names of their columns.

- MMSA's `label.csv`: video_id, clip_id, text, label, label_T, label_A, label_V, annotation, mode
  (github.com/thuiar/MMSA and MMSA-FET, `dataset.py`).
- Tables of the SDK's labels: id, segment_id, start, end, sentiment, the six emotions, sdk_split.
- `CMU_MOSEI_Labels.csv` of s3prl: file, index, start, end, label7 (sentiment rounded to a whole
  number), split 0 to 3 (s3prl/downstream/mosei).
- CMU's `Labels/*.csv` of the raw archive: one row an annotator, Input.VIDEO_ID, Input.CLIP,
  Answer.sentiment, Answer.happiness and so on; annotators are averaged. Not checked against the
  original, only against public programs that read it.
- `OpinionLevelSentiment.csv` of CMU-MOSI: no header; start, end, video, clip, sentiment.

The clip numbers of the second and third are rows of the SDK's label sequence; those of the others
are the numbers in the names of CMU's segmented clips. They differ for CMU-MOSEI: compare times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np

from mmembed.data.corpora.sentiment.corpus import SPLITS, Segment
from mmembed.data.corpora.tables import read_cells, read_table
from mmembed.data.folders import files_below
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.errors import DataError

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "video": ("video_id", "id", "file", "input.video_id"),
    "clip": ("clip_id", "segment_id", "index", "input.clip"),
    "start": ("start",),
    "end": ("end",),
    "transcript": ("text", "transcript"),
    "split": ("mode", "sdk_split", "split"),
    "sentiment": ("sentiment", "label", "answer.sentiment"),
    "sentiment_class": ("label7",),
    "sentiment_text": ("label_t",),
    "sentiment_audio": ("label_a",),
    "sentiment_video": ("label_v",),
    "happy": ("happy", "happiness", "answer.happiness"),
    "sad": ("sad", "sadness", "answer.sadness"),
    "anger": ("anger", "angry", "answer.anger"),
    "surprise": ("surprise", "surprised", "answer.surprise"),
    "disgust": ("disgust", "answer.disgust"),
    "fear": ("fear", "fearful", "answer.fear"),
}
"""Names of columns, in lower case."""

SCORES: Final = tuple(name for name in COLUMNS if name.startswith("sentiment_"))

HEADLESS: Final = ("start", "end", "video_id", "clip_id", "sentiment")


def find_labels(folder: Path) -> list[Path]:
    """The one label file of a folder, or all that hold a row an annotator.

    Raises:
        DataError: it holds several finished label files.
    """
    finished, raw = list[Path](), list[Path]()
    for path in files_below(folder, ".csv"):
        with suppress(DataError):
            header = _read_header(path)
            if not _missing(_columns(header)):
                (raw if _is_raw(header) else finished).append(path)
    if len(finished) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in finished)
        raise DataError(str(folder), "ambiguous", f"holds several label files, keep one: {names}")
    return finished or raw


def read_labels(paths: Sequence[Path]) -> list[Segment]:
    """The segments of one or more label files, in their order.

    Raises:
        DataError: a file is not UTF-8, names no video or clip, or holds no labels; or a number or
            split in it is not one.
    """
    headers = [_read_header(path) for path in paths]
    segments = []
    for path, header in zip(paths, headers, strict=True):
        columns = _columns(header)
        if missing := _missing(columns):
            found = ", ".join(header) or "nothing"
            what = f"no column for {' and '.join(missing)}; found {found}"
            raise DataError(str(path), "labels", what)
        for line, row in read_table(path, header=HEADLESS if header is HEADLESS else None):
            segments.append(_segment(row, columns, f"{path}:{line}"))
    if not segments:
        raise DataError(str(paths[0]), "empty", "holds no labels")
    return _averaged(segments) if any(map(_is_raw, headers)) else segments


def _read_header(path: Path) -> Sequence[str]:
    """The names of the columns; `HEADLESS` itself for a file without them."""
    header = next(read_cells(path), (1, list[str]()))[1]
    if len(header) == len(HEADLESS) and all(_is_number(header[i]) for i in (0, 1, 4)):
        return HEADLESS
    names = [cell.lower() for cell in header if cell]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path}:1", "labels", f"names the column {twice[0]} twice")
    return header


def _columns(header: Sequence[str]) -> dict[str, str]:
    """Our name of each column -> its name in the file."""
    small = {cell.lower(): cell for cell in header}
    return {
        ours: small[name]
        for ours, theirs in COLUMNS.items()
        for name in reversed(theirs)  # the first one wins
        if name in small
    }


def _missing(columns: Mapping[str, str]) -> list[str]:
    """The columns that a file lacks to be a label file."""
    if missing := sorted({"video", "clip"} - set(columns)):
        return missing
    return [] if {"sentiment", "sentiment_class"} & set(columns) else ["sentiment"]


def _is_raw(header: Sequence[str]) -> bool:
    """Whether a file has one row an annotator."""
    return "input.video_id" in map(str.lower, header)


def _segment(row: Mapping[str, str], names: Mapping[str, str], where: str) -> Segment:
    cells = {ours: (row.get(theirs) or "").strip() for ours, theirs in names.items()}
    if not cells["video"] or not cells["clip"]:
        raise DataError(where, "labels", "a row without the id of its video or clip")

    def number(name: str) -> float | None:
        cell = cells.get(name, "")
        if not cell:
            return None
        if not _is_number(cell):
            raise DataError(where, "labels", f"{name} is {cell!r}, not a number")
        return None if math.isnan(float(cell)) else float(cell)

    split: str | None = "?"
    if "split" in cells:
        if cells["split"].lower() not in SPLITS:
            allowed = ", ".join(name for name in SPLITS if name)
            raise DataError(where, "labels", f"split {cells['split']!r}: one of {allowed}")
        split = SPLITS[cells["split"].lower()]
    emotions = [number(name) for name in EMOTIONS]
    known = tuple(x for x in emotions if x is not None)
    return Segment(
        video=cells["video"],
        clip=cells["clip"],
        start=number("start"),
        end=number("end"),
        transcript=cells.get("transcript") or None,
        split=split,
        sentiment=number("sentiment"),
        emotions=known if len(known) == len(EMOTIONS) else None,
        scores={k: x for k in SCORES if (x := number(k)) is not None and math.isfinite(x)},
    )


def _averaged(answers: Sequence[Segment]) -> list[Segment]:
    """Segments of which each annotator has a row: the mean of their answers."""
    by_name: dict[str, list[Segment]] = {}
    for answer in answers:
        by_name.setdefault(answer.name, []).append(answer)
    segments = []
    for group in by_name.values():
        sentiments = [x.sentiment for x in group if x.sentiment is not None]
        emotions = [x.emotions for x in group if x.emotions is not None]
        segments.append(
            Segment(
                group[0].video,
                group[0].clip,
                sentiment=float(np.mean(sentiments)) if sentiments else None,
                emotions=tuple(np.mean(emotions, axis=0).tolist()) if emotions else None,
            )
        )
    return segments


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
