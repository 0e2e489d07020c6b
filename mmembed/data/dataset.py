"""Examples by number, out of the shards of one or several corpora."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from mmembed.data.example import Example
from mmembed.data.examples import from_record
from mmembed.data.shards import ShardSet

Meta = Mapping[str, object]


class Examples(Sequence[Example]):
    """A selection of the records of several shard folders.

    Everything needed for planning (lengths, speakers, splits) is in the shards' indices; the
    records themselves are read when asked for.

    Attributes:
        sizes: records selected of each folder; they come one folder after another.
    """

    def __init__(self, folders: Iterable[Path], keep: Callable[[Meta], bool] = lambda _: True):
        self._sets = [ShardSet(folder) for folder in folders]
        selected = [
            [(shards, index) for index in range(len(shards)) if keep(shards.meta(index))]
            for shards in self._sets
        ]
        self.sizes = tuple(map(len, selected))
        self._places = [place for places in selected for place in places]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        shards, place = self._places[index]
        record = shards.read(place)
        return from_record(record.key, record.members)

    def key(self, index: int) -> str:
        """The key of a record, without reading it."""
        shards, place = self._places[index]
        return shards.keys[place]

    def meta(self, index: int) -> Meta:
        """What the index holds of a record: lengths, speaker, split, transcript."""
        shards, place = self._places[index]
        return shards.meta(place)
