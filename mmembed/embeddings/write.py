"""Clips to embedding shards: several stream subsets from one decoding."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch

from mmembed.data.example import Example
from mmembed.data.fingerprints import Prints, changed_inputs, drop_if_changed, with_media
from mmembed.data.media.load import MediaSource, Source
from mmembed.data.shards.layout import Record, is_committed, shard_path, shard_writer
from mmembed.embeddings.record import Content
from mmembed.errors import DataError
from mmembed.training.distributed import cpu_count

Failure = dict[str, str]
Subset = tuple[str, ...]
_Batch = tuple[list[int], Future[list[Record | DataError]]]
MOST_THREADS: Final = 8  # Python itself runs in one at a time


class Threads(ThreadPoolExecutor):
    """Threads that embed batches, each batch in one: so no sum depends on how many there are.

    Small products gain little from a second thread each, and much from a second batch beside them.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, "embed", torch.set_num_threads, (1,))
        self.count = count

    @classmethod
    def of(cls, device: torch.device) -> Threads:
        """As many as there are processors, or OMP_NUM_THREADS says; for a GPU one."""
        threads = int(os.environ.get("OMP_NUM_THREADS") or cpu_count())
        return cls(1 if device.type == "cuda" else min(threads, MOST_THREADS))


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
        paths = {folder: shard_path(folder, number) for folder in self.folders}
        inputs = self.inputs(number)
        return [f for f, path in paths.items() if changed_inputs(path, inputs, note=False)]

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


def make_shards(
    plan: Plan,
    number: int,
    examples: Iterable[Example | DataError],
    content: Content,
    provenance: Callable[[Subset], Mapping[str, Any]],
    batch_size: int,
    threads: Threads,
) -> Iterator[None]:
    """Write the shards of one number that are missing, all from the same pass over the clips.

    A batch is filled with the clips that have any of a folder's streams, so that the vectors do not
    depend on which other folders are made at the same time.

    Args:
        plan: what there is to do.
        number: of the shards.
        examples: the clips of this number, or why there is none; not begun with yet.
        content: what is stored of each.
        provenance: of the shards of a stream subset.
        batch_size: clips in one batch.
        threads: embed the batches.

    Yields:
        After each clip.
    """
    prints, missing = Prints(), plan.missing(number)
    prints.take(plan.inputs(number))
    with ExitStack() as stack:
        queues = []
        for folder in missing:
            subset, failed = plan.folders[folder], list[Failure]()
            # The list grows while records are written; the index, which holds it, comes after them.
            held = {**provenance(subset), "fingerprints": prints.digests, "failed": failed}
            put = stack.enter_context(shard_writer(shard_path(folder, number), held))
            queues.append(_Queue(subset, content, batch_size, put, failed, threads))
        for source, example in zip(plan.clips(number), examples, strict=True):
            for queue in queues:
                queue.add(source, example)
            yield
        for queue in queues:
            queue.empty()
    for folder in missing:
        prints.keep(shard_path(folder, number))


@dataclass
class _Queue:
    """Clips on their way into one shard."""

    streams: Subset
    content: Content
    size: int
    put: Callable[[Record], None]
    failed: list[Failure]
    threads: Threads
    _clips: list[Source] = field(default_factory=list)
    _waiting: dict[int, Example] = field(default_factory=dict)
    _running: deque[_Batch] = field(default_factory=deque)
    _failed: dict[int, Failure] = field(default_factory=dict)

    def add(self, source: Source, example: Example | DataError) -> None:
        number = len(self._clips)
        self._clips.append(source)
        if isinstance(example, DataError):
            self._fail(number, example)
            return
        # Features of others are nothing that an encoder could read.
        own = replace(example.only(self.streams), features={})
        if not own.streams:
            missing = f"has none of {', '.join(self.streams)}"
            self._fail(number, DataError(source.name, "no_streams", missing))
        elif own.is_long:  # one at a time, and not kept waiting: it takes memory
            self.empty()
            self._waiting[number] = own
            self.empty()
        else:
            self._waiting[number] = own
            if len(self._waiting) == self.size:
                self._start()

    def empty(self) -> None:
        """Write all that there is."""
        if self._waiting:
            self._start()
        while self._running:
            self._write()
        self.failed[:] = [self._failed[number] for number in sorted(self._failed)]

    def _start(self) -> None:
        records = self.threads.submit(self.content.embed, [*self._waiting.values()])
        self._running.append(([*self._waiting], records))
        self._waiting.clear()
        if len(self._running) > self.threads.count:
            self._write()

    def _write(self) -> None:
        numbers, records = self._running.popleft()
        for number, record in zip(numbers, records.result(), strict=True):
            if isinstance(record, DataError):
                self._fail(number, record)
            else:
                self.put(record)

    def _fail(self, number: int, error: DataError) -> None:
        name, message = self._clips[number].name, str(error)
        if error.item != name:
            message = f"{name}: {message.removeprefix(f'{error.item}: ')}"
        self._failed[number] = {"item": name, "reason": error.reason, "message": message}
