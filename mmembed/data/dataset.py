"""Examples by number, out of the shards of one or several corpora."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import ShardSet
from mmembed.data.shards.records import from_record
from mmembed.features.text import normalise_transcript

Meta = Mapping[str, object]


class Examples(Sequence[Example]):
    """A selection of the records of several shard folders.

    Everything needed for planning (lengths, speakers, splits) is in the shards' indices; the
    records themselves are read one by one.

    Args:
        folders: of shards, or URLs; their records come one folder after another.
        keep: whether to select records with this "split", "speaker" and "streams" (the tuple of
            those with steps); it is called once for each combination that occurs.

    Attributes:
        sets: the folders, opened.
        sizes: records selected of each folder.
        folders: (N,) which of the folders each record is in, counted from 0.
        records: (N,) its number there.
    """

    def __init__(
        self, folders: Iterable[Path | str], keep: Callable[[Meta], bool] | None = None
    ) -> None:
        self.sets = [ShardSet(folder) for folder in folders]
        self._selected = [_select(shards, keep) for shards in self.sets]
        self.sizes = tuple(map(len, self._selected))
        self.folders = np.repeat(np.arange(len(self.sets)), self.sizes)
        self.records = np.concatenate([np.empty(0, np.int64), *self._selected])

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        shards, number = self._find(index)
        record = shards.read(number)
        return from_record(record.key, record.members)

    def utterance(self, index: int) -> Utterance:
        """The manifest row of a record, without reading its streams."""
        shards, number = self._find(index)
        record = shards.read(number, ["json"])
        return from_record(record.key, record.members).utterance

    def key(self, index: int) -> str:
        """The key of a record, without reading it."""
        shards, number = self._find(index)
        return shards.key(number)

    def meta(self, index: int) -> Meta:
        """What the index holds of a record: lengths, speaker, split, transcript."""
        shards, number = self._find(index)
        return shards.meta(number)

    def numbers(self, name: str) -> NDArray[np.int64]:
        """(N,) a number of all records, such as "lengths.audio"; see `ShardSet.numbers`."""
        parts = zip(self.sets, self._selected, strict=True)
        return np.concatenate([shards.numbers(name)[selected] for shards, selected in parts])

    def texts(self, name: str) -> pa.ChunkedArray:
        """(N,) a text of all records, such as "speaker"; see `ShardSet.texts`."""
        parts = zip(self.sets, self._selected, strict=True)
        taken = [shards.texts(name).take(pa.array(selected)) for shards, selected in parts]
        return pa.chunked_array([chunk for part in taken for chunk in part.chunks], pa.string())

    def transcripts(self) -> list[str]:
        """The words of all records, normalised; "" where there are none."""
        return [normalise_transcript(text or "") for text in self.texts("transcript").to_pylist()]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what all folders hold; see `ShardSet.digest`."""
        digests = [shards.digest for shards in self.sets]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def _find(self, index: int) -> tuple[ShardSet, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return self.sets[self.folders[index]], int(self.records[index])


def _select(shards: ShardSet, keep: Callable[[Meta], bool] | None) -> NDArray[np.int64]:
    """The numbers of the records to keep."""
    if keep is None:
        return np.arange(len(shards))
    splits, split_codes = _codes(shards.texts("split"))
    speakers, speaker_codes = _codes(shards.texts("speaker"))
    subsets, subset_codes = _streams(shards)
    codes = (split_codes * len(speakers) + speaker_codes) * len(subsets) + subset_codes
    kept = np.zeros(len(splits) * len(speakers) * len(subsets), bool)
    for code in np.flatnonzero(np.bincount(codes, minlength=len(kept))).tolist():
        split, rest = divmod(code, len(speakers) * len(subsets))
        speaker, subset = divmod(rest, len(subsets))
        found = {"split": splits[split], "speaker": speakers[speaker], "streams": subsets[subset]}
        kept[code] = keep(found)
    return np.flatnonzero(kept[codes])


def _streams(shards: ShardSet) -> tuple[list[tuple[str, ...]], NDArray[np.int64]]:
    """(all sets of streams; which of them each record has)."""
    subsets = [
        tuple(stream for bit, stream in enumerate(STREAMS) if code >> bit & 1)
        for code in range(1 << len(STREAMS))
    ]
    held = [(shards.numbers(f"lengths.{stream}") > 0) << bit for bit, stream in enumerate(STREAMS)]
    return subsets, np.sum(held, axis=0, dtype=np.int64)


def _codes(column: pa.ChunkedArray) -> tuple[list[str | None], NDArray[np.int64]]:
    """(the different values, None among them; which of them each record has)."""
    encoded = column.dictionary_encode("encode").combine_chunks()
    codes: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
    return encoded.dictionary.to_pylist(), codes
