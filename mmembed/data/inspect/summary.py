"""What a corpus holds: its rows as columns, and what is counted of them.

Of a row only numbers and names are kept, packed by Arrow: some 250 bytes for each of a million.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmembed.data.feature_files import SUFFIX
from mmembed.data.locations import FAILED, Location, Progress
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.data.stored_rows import StoredRow, read_rows
from mmembed.errors import DataError
from mmembed.io.json import read_lines
from mmembed.streams import subset_name

SAMPLES: Final = 24  # faces and transcripts that are kept
EXAMPLES: Final = 3  # repeats that are named
NO_SPLIT: Final = "without split"
NONE_PRESENT: Final = "none of them"
NOT_LOOKED_AT: Final = "not looked at yet"

_BATCH: Final = 10_000  # rows that are packed at once
_FEATURE_ROW: Final = SUFFIX + "#"
_UNLABELLED: Final = (None,) * len(EMOTIONS)
_NAMES: Final = (
    "split", "speaker", "dialogue", "streams", "language", "licence", "face", "category"
)  # fmt: skip
_NUMBERS: Final = ("seconds", "words", "sentiment", *EMOTIONS)
_ROWS: Final = pa.schema(
    [
        *((name, pa.string()) for name in ("key", *_NAMES)),
        *((name, pa.float64()) for name in _NUMBERS),
        ("present", pa.list_(pa.string())),
        ("media", pa.binary()),  # a file that utterances are parts of
        # Hashes: 64 bits are enough to distinguish the rows of a corpus.
        ("same_media", pa.int64()),  # of the file and the times in it
        ("same_words", pa.int64()),  # of the transcript and the speaker, where both are known
        ("same_audio", pa.int64()),  # of size and CRC-32 of the audio features
        ("tar", pa.dictionary(pa.int32(), pa.binary())),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)
_SCORES: Final = pa.schema([("name", pa.string()), ("value", pa.float64())])
_VECTORS: Final = pa.schema(
    [("stream", pa.string()), *((name, pa.int64()) for name in ("width", "steps", "bad", "is_bad"))]
)


class _Columns:
    """A table that grows by rows; the last ones are not packed yet."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows: list[tuple[Any, ...]] = []
        self._batches: list[pa.RecordBatch] = []

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        if len(self._rows) == _BATCH:
            self._pack()

    @property
    def table(self) -> pa.Table:
        """All rows."""
        self._pack()
        return pa.Table.from_batches(self._batches, self._schema)

    def grouped(self, by: str | list[str], *of: tuple[str, str]) -> list[dict[str, Any]]:
        """Aggregates such as ("value", "mean"), in the order in which the groups come first."""
        groups = self.table.group_by(by, use_threads=False).aggregate(list(of))
        rows: list[dict[str, Any]] = groups.to_pylist()
        return rows

    def _pack(self) -> None:
        if self._rows:
            columns = zip(zip(*self._rows, strict=True), self._schema.types, strict=True)
            arrays = [pa.array(column, kind) for column, kind in columns]
            self._batches.append(pa.record_batch(arrays, self._schema))
            self._rows = []


class Sample:
    """A seeded choice of a few among many that come one by one (reservoir sampling)."""

    def __init__(self, size: int, seed: int) -> None:
        self.items: list[Any] = []
        self._size, self._seen, self._random = size, 0, random.Random(seed)

    def add(self, item: Any) -> None:
        self._seen += 1
        if len(self.items) < self._size:
            self.items.append(item)
        elif (position := self._random.randrange(self._seen)) < self._size:
            self.items[position] = item


class Summary:
    """The rows of one location.

    Attributes:
        location: what was looked at.
        rows: a row for each utterance, see `_ROWS`.
        scores: a row for each score of an utterance that has a name.
        vectors: a row for each stream of precomputed features, or "pooled": width, steps, and how
            many values are not finite.
        vocabulary: word -> how often.
        broken: reason -> rows that cannot be used or were left out.
        failures: the first few of these as (key, message).
        texts: sample of (key, transcript).
        crops: sample of (key, where the face crops lie).
    """

    def __init__(self, location: Location, seed: int = 0) -> None:
        self.location = location
        self.rows, self.scores, self.vectors = map(_Columns, (_ROWS, _SCORES, _VECTORS))
        self.vocabulary: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.failures: list[tuple[str, str]] = []
        self.texts, self.crops = Sample(SAMPLES, seed), Sample(SAMPLES, seed)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, row: StoredRow) -> None:
        utterance, labels, words = row.utterance, row.utterance.labels, row.text.split()
        present, media, speaker = labels.present, utterance.media, utterance.speaker
        streams = NOT_LOOKED_AT if row.streams is None else "none"
        same_media = same_words = same_audio = None
        tar = offset = size = None
        if row.streams:
            streams = subset_name(row.streams)
        if media is not None:
            same_media = hash((media, utterance.start, utterance.end))
        if words:
            self.vocabulary.update(words)
            self.texts.add((utterance.key, utterance.transcript or row.text))
            same_words = None if speaker is None else hash((speaker, row.text))
        if row.audio is not None:
            _, offset, size, checksum = row.audio.member
            tar, same_audio = os.fsencode(row.audio.tar), hash((size, checksum))
        if row.video is not None:
            self.crops.add((utterance.key, row.video))
        self.rows.add(
            utterance.key, utterance.split or NO_SPLIT, speaker, utterance.dialogue,
            streams, utterance.language, utterance.licence, row.face, labels.category,
            row.seconds, len(words) or None, labels.sentiment, *(labels.emotions or _UNLABELLED),
            None if present is None else sorted({*present}) or [NONE_PRESENT],
            None if media is None or _FEATURE_ROW in media else os.fsencode(media),
            same_media, same_words, same_audio, tar, offset, size,
        )  # fmt: skip
        for name, value in labels.scores.items():
            self.scores.add(name, value)
        for name, array in row.vectors.items():
            bad = array.size - int(np.isfinite(array).sum())
            steps = len(array) if array.ndim > 1 else 1
            self.vectors.add(name, array.shape[-1], steps, bad, int(bad > 0))

    def fail(self, key: str, reason: str, message: str) -> None:
        self.broken[reason] += 1
        if len(self.failures) < SAMPLES:
            self.failures.append((key, message))

    def counts(self, name: str) -> dict[str, int]:
        """Value -> rows, of a column of names or lists of names; nulls are not counted."""
        column = self.rows.table[name].drop_null()
        column = pc.list_flatten(column) if pa.types.is_list(column.type) else column
        return {pair["values"]: pair["counts"] for pair in column.value_counts().to_pylist()}

    def numbers(self, name: str) -> NDArray[np.float64]:
        """The values of a column of numbers that are known."""
        numbers: NDArray[np.float64] = self.rows.table[name].drop_null().to_numpy()
        return numbers

    def emotions(self) -> dict[str, tuple[int, int]]:
        """Emotion -> rows with an intensity of it, and with one above 0."""
        found = {name: self.numbers(name) for name in EMOTIONS}
        return {name: (len(x), int((x > 0).sum())) for name, x in found.items() if len(x)}

    def split_across(self, name: str) -> list[str]:
        """The values of a column that occur in more than one of train, dev and test.

        Held-out utterances are by speakers of the training split, and said to be.
        """
        table = self.rows.table.select([name, "split"]).drop_null()
        split = pc.replace_substring(table["split"], "heldout", "train")
        table = table.set_column(1, "split", split).filter(pc.not_equal(split, NO_SPLIT))
        splits = table.group_by(name).aggregate([("split", "count_distinct")])
        values = splits.filter(pc.greater(splits["split_count_distinct"], 1))[name].to_pylist()
        return sorted(map(os.fsdecode, values))

    def repeats(self, name: str) -> tuple[int, list[tuple[str, str]]]:
        """What occurs again in a column of hashes: `same_media`, `same_words`, `same_audio`.

        Returns:
            how often something came that had been there before; (first key, key) of a few of these.
        """
        table = self.rows.table.select(["key", name, "tar", "offset", "size"])
        table = table.filter(pc.is_valid(table[name]))
        _, first, inverse = np.unique(
            table[name].to_numpy(), return_index=True, return_inverse=True
        )
        earlier = first[inverse].tolist()
        again = np.flatnonzero(first[inverse] != np.arange(len(table))).tolist()
        if name == "same_audio":  # 32 bits of checksum are few for a large corpus: compare bytes
            again = [i for i in again if _audio(table, i) == _audio(table, earlier[i])]
        keys = table["key"]
        examples = [(keys[earlier[i]].as_py(), keys[i].as_py()) for i in again[:EXAMPLES]]
        return len(again), examples


def _audio(table: pa.Table, row: int) -> bytes:
    tar, offset, size = (table[name][row].as_py() for name in ("tar", "offset", "size"))
    with open(tar, "rb") as file:
        return os.pread(file.fileno(), size, offset)


def summarise(
    location: Location, seed: int = 0, on_progress: Progress = lambda done, of: None
) -> Summary:
    """Count what a location holds.

    Raises:
        DataError: a manifest is broken.
        CorruptError: a shard is damaged.
    """
    summary = Summary(location, seed)
    for row in read_rows(location, on_progress):
        if isinstance(row, DataError):
            summary.fail(row.item, row.reason, str(row))
        else:
            summary.add(row)
    for failure in read_lines(location.path / FAILED):
        key = str(failure.get("key", failure.get("item")))
        summary.fail(key, str(failure.get("reason")), str(failure.get("message")))
    return summary
