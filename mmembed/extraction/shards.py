"""Clips to embedding shards: several stream subsets from one decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmembed.data.example import Example
from mmembed.data.shards import Record, is_committed, shard_path, shard_writer
from mmembed.data.sources import Source
from mmembed.embedder.windows import is_long
from mmembed.errors import DataError
from mmembed.extraction.content import Content

Failure = dict[str, str]
Subset = tuple[str, ...]


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

    @property
    def complete(self) -> bool:
        """Whether all shards are there."""
        return not any(map(self.missing, self.numbers))


def make_shards(
    plan: Plan,
    number: int,
    examples: Iterable[Example | DataError],
    content: Content,
    provenance: Callable[[Subset], Mapping[str, Any]],
    clips_at_once: int,
) -> Iterator[None]:
    """Write the shards of one number that are missing, all from the same pass over the clips.

    A batch is filled with the clips that have any of a folder's streams, so that the vectors do not
    depend on which other folders are made at the same time.

    Args:
        plan: what there is to do.
        number: of the shards.
        examples: the clips of this number, or why there is none.
        content: what is stored of each.
        provenance: of the shards of a stream subset.
        clips_at_once: clips in one batch.

    Yields:
        After each clip.
    """
    with ExitStack() as stack:
        queues = []
        for folder in plan.missing(number):
            subset, failed = plan.folders[folder], list[Failure]()
            # The list grows while records are written; the index, which holds it, comes after them.
            held = {**provenance(subset), "failed": failed}
            put = stack.enter_context(shard_writer(shard_path(folder, number), held))
            queues.append(_Queue(subset, content, clips_at_once, put, failed))
        for source, example in zip(plan.clips(number), examples, strict=True):
            for queue in queues:
                queue.add(source, example)
            yield
        for queue in queues:
            queue.empty()


@dataclass
class _Queue:
    """Clips on their way into one shard."""

    streams: Subset
    content: Content
    size: int
    put: Callable[[Record], None]
    failed: list[Failure]
    _waiting: list[tuple[Source, Example]] = field(default_factory=list)

    def add(self, source: Source, example: Example | DataError) -> None:
        if isinstance(example, DataError):
            self._fail(source, example)
            return
        # Features of others are nothing that an encoder could read.
        own = replace(example.only(self.streams), features={})
        if is_long(own):  # one at a time, and not kept waiting: it takes memory
            self.empty()
        if own.streams:
            self._waiting.append((source, own))
        else:
            missing = f"has none of {', '.join(self.streams)}"
            self._fail(source, DataError(source.name, "no_streams", missing))
        if len(self._waiting) == self.size or is_long(own):
            self.empty()

    def empty(self) -> None:
        if not self._waiting:
            return
        found = self.content.embed([example for _, example in self._waiting])
        for (source, _), made in zip(self._waiting, found, strict=True):
            if isinstance(made, DataError):
                self._fail(source, made)
            else:
                self.put(made)
        self._waiting.clear()

    def _fail(self, source: Source, error: DataError) -> None:
        message = str(error)
        if error.item != source.name:
            message = f"{source.name}: {message.removeprefix(f'{error.item}: ')}"
        self.failed.append({"item": source.name, "reason": error.reason, "message": message})
