"""Clips to embedding shards: what is stored of a clip, and several stream subsets at once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.config import Precision
from mmembed.data.example import Example
from mmembed.data.fingerprints import Fingerprints, changed_inputs, drop_if_changed, with_media
from mmembed.data.manifest.utterance import row_of
from mmembed.data.media.load import MediaSource, Source
from mmembed.data.shards.layout import Record, is_committed, shard_path, shard_writer
from mmembed.embedder import Embedder, Embedding
from mmembed.embedder.steps import check_steps, encode_steps
from mmembed.errors import DataError, UsageError
from mmembed.training.distributed import cpu_count

Granularity = Literal["utterance", "frame", "word", "steps"]
Dtype = Literal["float32", "float16"]
Array = NDArray[Any]
Failure = dict[str, str]
Subset = tuple[str, ...]
_Batch = tuple[list[int], Future[list[Record | DataError]]]
MOST_THREADS: Final = 8  # Python itself runs in one at a time
BLOCK: Final = 512  # bytes; of a tar, which has a header for each member
NPY_HEADER: Final = 128  # bytes
JSON: Final = 1024  # bytes of a record's JSON and its line in the index, about


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
    prints, missing = Fingerprints(), plan.missing(number)
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
        name = self._clips[number].name
        message = f"{name}: {error.message}"
        self._failed[number] = {"item": name, "reason": error.reason, "message": message}


@dataclass(frozen=True)
class Content:
    """What an embedder writes of each clip.

    Attributes:
        embedder: the frozen encoder.
        granularity: "utterance" = pooled and layers, "frame" = frames, "word" = words,
            "steps" = all layers at every step, of a pretrained encoder of one stream.
        layers: names of those to store; () = all.
        dtype: of what is written.
        precision: of the matrix products, "fp32" or "bf16".

    Raises:
        UsageError: there is no such layer.
    """

    embedder: Embedder
    granularity: tuple[Granularity, ...] = ("utterance",)
    layers: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        known = self.embedder.encoder.layer_names
        if unknown := [name for name in self.layers if name not in known]:
            raise UsageError(f"--layers {unknown[0]!r}: there are {', '.join(known)}")
        if not self.granularity:
            raise UsageError("--granularity: name one or more of utterance, frame, word, steps")
        if "steps" in self.granularity:
            check_steps(self.embedder)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Of the layers that are stored, in the encoder's order."""
        known = self.embedder.encoder.layer_names
        return tuple(name for name in known if name in self.layers) if self.layers else known

    @property
    def description(self) -> dict[str, Any]:
        """What a reader has to know of the vectors."""
        listener = self.embedder.listener if "word" in self.granularity else None
        return {
            **self.embedder.description,
            **({} if listener is None else {"recogniser_sha256": listener.sha256}),
            "layers": list(self.layer_names),
            "granularity": sorted(self.granularity),
            "dtype": self.dtype,
            "computed_in": "bfloat16" if self.precision == "bf16" else "float32",
        }

    def embed(self, examples: Sequence[Example]) -> list[Record | DataError]:
        """The records of a batch, in its order; an error where a vector is not finite."""
        half = self.precision == "bf16"
        with torch.autocast(self.embedder.device.type, torch.bfloat16, enabled=half):
            found = self.embedder.embed(examples, words="word" in self.granularity)
            steps: Sequence[Array | None] = [None] * len(examples)
            if "steps" in self.granularity:
                steps = encode_steps(self.embedder, examples)
        return [self._record(*each) for each in zip(examples, found, steps, strict=True)]

    def _record(
        self, example: Example, embedding: Embedding, steps: Array | None
    ) -> Record | DataError:
        arrays, described = self._members(embedding)
        if steps is not None:
            arrays["steps.npy"] = steps.astype(self.dtype)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                return DataError(example.key, "not_finite", f"{name} is not finite in {self.dtype}")
        meta = {
            "frames": len(embedding.frames),
            "split": example.utterance.split,
            "speaker": example.utterance.speaker,
        }
        if "word" in self.granularity:
            meta["words"] = len(described["words"])
        described |= {
            **row_of(example.utterance),
            "streams": list(example.streams),
            "notes": example.info.to_json(),
            "frame_rate": self.embedder.encoder.frame_rate,
        }
        members: dict[str, Array | Mapping[str, object]] = {**arrays, "json": described}
        return Record(example.key, members, meta)

    def _members(self, embedding: Embedding) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays, and what the JSON has to say of them."""
        arrays: dict[str, Array] = {}
        described: dict[str, Any] = {}
        if "utterance" in self.granularity:
            chosen = [embedding.layer_names.index(name) for name in self.layer_names]
            arrays |= {"pooled.npy": embedding.pooled, "layers.npy": embedding.layers[chosen]}
        if "frame" in self.granularity:
            arrays["frames.npy"] = embedding.frames
        if "word" in self.granularity:
            words = () if isinstance(embedding.aligned, str) else embedding.aligned
            width = len(embedding.pooled)
            arrays["words.npy"] = np.array([word.vector for word in words]).reshape(-1, width)
            described["words"] = [
                {"text": word.text, "start": word.start, "end": word.end} for word in words
            ]
            if embedding.words_from is not None:
                described["words_from"] = embedding.words_from
            if isinstance(embedding.aligned, str):
                unknown = embedding.transcript is None
                why = "its words are not known" if unknown else embedding.aligned
                described["no_words"] = why
        with np.errstate(over="ignore"):  # what is too large for float16 becomes infinite, an error
            return {name: x.astype(self.dtype) for name, x in arrays.items()}, described

    def size(self, frames: int, words: int) -> int:
        """About how many bytes a clip takes in a shard."""
        encoder = self.embedder.encoder
        width = 2 * encoder.frame_width
        values = {
            "utterance": (width, len(self.layer_names) * 2 * encoder.layer_width),
            "frame": (frames * width // 2,),
            "word": (words * width,),
            "steps": (frames * len(encoder.layer_names) * encoder.layer_width,),
        }
        total, each = JSON + BLOCK, np.dtype(self.dtype).itemsize
        for granularity in self.granularity:
            for count in values[granularity]:
                total += BLOCK + -(-(NPY_HEADER + each * count) // BLOCK) * BLOCK
        return total
