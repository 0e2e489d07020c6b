"""Which clips stand in which embedding shard."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mmembed.data.fingerprints import changed_inputs, drop_if_changed, with_media
from mmembed.data.media.load import MediaSource, Source
from mmembed.data.shards.layout import is_committed, shard_path

Subset: TypeAlias = tuple[str, ...]
"""Streams, in the order of `mmembed.batch.STREAMS`."""


@dataclass(frozen=True)
class Plan:
    """Which clips stand in which shard; fixed by the inputs, however many processes share it.

    Attributes:
        sources: all clips, in order.
        folders: folder -> the streams used there.
        records_per_shard: clips planned for one shard, those that fail included.
    """

    sources: Sequence[Source]
    folders: Mapping[Path, Subset]
    records_per_shard: int

    @property
    def numbers(self) -> range:
        """Of the shards; each folder has one of each number, all of the same clips."""
        return range(-(-len(self.sources) // self.records_per_shard))

    def clips(self, number: int) -> Sequence[Source]:
        """Those of one shard."""
        first = number * self.records_per_shard
        return self.sources[first : first + self.records_per_shard]

    def missing(self, number: int) -> list[Path]:
        """The folders that lack this shard."""
        return [folder for folder in self.folders if not is_committed(shard_path(folder, number))]

    def inputs(self, number: int) -> list[MediaSource]:
        """The media that a shard is made of."""
        return with_media(self.clips(number))

    def changed(self, number: int) -> list[Path]:
        """The folders whose shard is there, but made of other media than those of today."""
        inputs = self.inputs(number)
        return [
            f for f in self.folders if changed_inputs(shard_path(f, number), inputs, note=False)
        ]

    def drop_changed(self, numbers: Iterable[int]) -> None:
        """Uncommit such shards, so that they are made again."""
        for number in numbers:
            inputs = self.inputs(number)
            for folder in self.folders:
                drop_if_changed(shard_path(folder, number), inputs)

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return not any(map(self.missing, self.numbers))
