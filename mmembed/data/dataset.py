"""Examples by number, out of the shards of one or several corpora."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import ShardSet
from mmembed.data.shards.metadata import crop_form
from mmembed.data.shards.records import OLDER, from_record, is_older
from mmembed.errors import CorruptError, UsageError
from mmembed.features.text import normalise_transcript
from mmembed.features.video import SMALL_GREY, CropForm
from mmembed.streams import STREAMS

Meta = Mapping[str, object]


class Examples(Sequence[Example]):
    """A selection of the records of several shard folders.

    Everything needed for planning (lengths, speakers, splits) is in the shards' indices; the
    records themselves are read one by one.

    Args:
        folders: of shards, or URLs; their records come one folder after another.
        keep: whether to select records with this "split", "speaker" and "streams" (the tuple of
            those with steps); it is called once for each combination that occurs.

    Raises:
        CorruptError: a folder was prepared by an older version; its first record with sound tells.

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
        for shards in self.sets:
            heard = np.flatnonzero(shards.numbers("lengths.audio"))
            if len(heard) and is_older(shards.member_names(int(heard[0]))):
                raise CorruptError(f"{shards.name}: {OLDER}")
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
    def crops(self) -> CropForm:
        """The form of the face crops.

        Raises:
            UsageError: folders differ in it.
        """
        found: dict[CropForm, Path | str] = {}
        for shards in self.sets:
            if shards.numbers("lengths.video").any():
                found.setdefault(crop_form(shards.manifest), shards.folder)
        if len(found) > 1:
            (one, first), (other, second) = list(found.items())[:2]
            raise UsageError(
                f"{first} holds face crops of {one}, {second} of {other}: prepare both with the "
                "same --crop and --colour"
            )
        return next(iter(found), SMALL_GREY)

    def check_crops(self, form: CropForm) -> None:
        """Refuse face crops of another form than an encoder reads, with a UsageError."""
        if self.numbers("lengths.video").any() and self.crops != form:
            names = ", ".join(str(shards.folder) for shards in self.sets)
            colour = "with --colour" if form.colour else "without --colour"
            raise UsageError(
                f"{names}: face crops of {self.crops}, but this encoder reads {form}: prepare the "
                f"corpus again with --crop {form.size}, {colour}, or leave the video stream out"
            )

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
    if keep is None or not len(shards):
        return np.arange(len(shards))
    texts = [shards.texts(name).dictionary_encode("encode") for name in ("split", "speaker")]
    columns = [column.combine_chunks() for column in texts]
    codes = [column.indices.to_numpy() for column in columns]
    codes += [(shards.numbers(f"lengths.{stream}") > 0).astype(np.int64) for stream in STREAMS]
    splits, speakers = (column.dictionary.to_pylist() for column in columns)
    shape = (len(splits), len(speakers), 2, 2, 2)
    combinations, which = np.unique(np.ravel_multi_index(codes, shape), return_inverse=True)
    kept = [
        keep({"split": splits[split], "speaker": speakers[speaker],
              "streams": tuple(itertools.compress(STREAMS, present))})
        for split, speaker, *present in zip(*np.unravel_index(combinations, shape), strict=True)
    ]  # fmt: skip
    return np.flatnonzero(np.array(kept)[which])
