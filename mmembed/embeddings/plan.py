"""Which clips stand in which embedding shard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from mmembed.data.fingerprints import changed_inputs, drop_if_changed, with_media
from mmembed.data.media.load import MediaSource, Source
from mmembed.data.shards.layout import is_committed, shard_path, shard_sidecar

Subset: TypeAlias = tuple[str, ...]
"""Streams, in the order of `mmembed.batch.STREAMS`."""


@dataclass(frozen=True)
class Plan:
    """Which clips stand in which shard; fixed by the inputs, however many processes share it.

    Attributes:
        sources: all clips, in order.
        folders: folder -> the streams used there.
        records_per_shard: clips planned for one shard, those that fail included.
        again: shards to make again though they are there -> what their index was when that was
            found, which a new one is not.
        is_committed: whether the shard with a tar is there.
    """

    sources: Sequence[Source]
    folders: Mapping[Path, Subset]
    records_per_shard: int
    again: dict[Path, tuple[int, int]] = field(default_factory=dict)
    is_committed: Callable[[Path], bool] = is_committed

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
        return [f for f in self.folders if self._is_missing(shard_path(f, number))]

    def make_again(self, numbers: Iterable[int], reasons: Collection[str]) -> None:
        """Make the shards of these numbers again that list clips which failed for such reasons;
        "any" is all of them. They stay until new ones are whole.
        """
        for number in numbers if reasons else ():
            for tar in (shard_path(folder, number) for folder in self.folders):
                failed = (shard_sidecar(tar) or {}).get("provenance", {}).get("failed", ())
                if any("any" in reasons or one.get("reason") in reasons for one in failed):
                    self.renew(tar)

    def renew(self, tar: Path) -> None:
        """Make a shard again that is there; it stays until the new one is whole."""
        self.again[tar] = _stamp(tar)

    def _is_missing(self, tar: Path) -> bool:
        if not self.is_committed(tar):
            return True
        return tar in self.again and _stamp(tar) == self.again[tar]

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


def _stamp(tar: Path) -> tuple[int, int]:
    """What tells the index of a shard from a later one."""
    found = tar.with_suffix(".json").stat()
    return found.st_mtime_ns, found.st_ino
