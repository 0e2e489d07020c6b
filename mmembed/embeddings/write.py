"""Clips to embedding shards: what is stored of a clip, and several stream subsets at once."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.batch import ClipInputs
from mmembed.config import Precision
from mmembed.data.example import Example, batches
from mmembed.data.fingerprints import Fingerprints
from mmembed.data.manifest.utterance import row_of
from mmembed.data.media.load import Source
from mmembed.data.shards.layout import Record, shard_path, shard_writer
from mmembed.embedder import Embedder, Embedding
from mmembed.embedder.steps import check_steps, encode_steps
from mmembed.embeddings.plan import Plan, Subset
from mmembed.errors import DataError, UsageError
from mmembed.settings.extract import Dtype, Granularity
from mmembed.training.distributed import cpu_count

Array = NDArray[Any]
Failure = dict[str, str]
Embedded: TypeAlias = dict[Subset, dict[str, Record | DataError]]
"""For each stream subset, key -> what is stored of a clip, in the order of a batch."""

MOST_OPEN: Final = 2  # shards of a folder
WAITING: Final = 2  # batches that wait for a thread or to be written
MOST_THREADS: Final = 8  # Python itself runs in one at a time
BLOCK: Final = 512  # bytes; of a tar, which has a header for each member
NPY_HEADER: Final = 128  # bytes
JSON: Final = 1024  # bytes of a record's JSON and its line in the index, about


class Threads:
    """Threads that embed batches, each batch in one: so no sum depends on how many there are.

    Small products gain little from a second thread each, and much from a second batch beside them.
    One more makes tensors of the clips, so that the next batch is ready when a device has done one.

    Attributes:
        count: how many embed.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        how = torch.set_num_threads, (1,)
        self._packing = ThreadPoolExecutor(1, "pack", *how)
        self._embedding = ThreadPoolExecutor(count, "embed", *how)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        for pool in (self._packing, self._embedding):
            pool.shutdown(wait=error is None, cancel_futures=True)

    def submit(
        self, content: Content, examples: Sequence[Example], subsets: Sequence[Subset]
    ) -> Future[Embedded]:
        """Begin `Content.embed` of a batch."""
        packed = self._packing.submit(content.embedder.pack, examples)
        return self._embedding.submit(lambda: content.embed(examples, subsets, packed.result()))

    @classmethod
    def of(cls, device: torch.device) -> Threads:
        """As many as there are processors, or OMP_NUM_THREADS says; for a GPU one."""
        threads = int(os.environ.get("OMP_NUM_THREADS") or cpu_count())
        return cls(1 if device.type == "cuda" else min(threads, MOST_THREADS))


def make_shards(
    plan: Plan,
    numbers: Iterable[int],
    load: Callable[[Iterable[Source]], Iterator[Example | DataError]],
    content: Content,
    provenance: Callable[[Subset], Mapping[str, Any]],
    frames: int,
    threads: Threads,
    on_progress: Callable[[int], None] = lambda done: None,
    on_commit: Callable[[int], None] = lambda number: None,
) -> None:
    """Write the shards of these numbers in all folders that lack them, in one pass over the clips.

    While the last batches of a shard are embedded and written, the clips of the next are decoded.
    So two shards of a folder are open at most, which is what a run that ends early loses.

    Batches are of the clips of one shard and depend on these alone: neither on the folders that
    lack it nor on how many processes or threads there are.

    Args:
        plan: what there is to do.
        numbers: of the shards; each is asked for when decoding has come so far.
        load: decodes clips, in their order.
        content: what is stored of each.
        provenance: of the shards of a stream subset.
        frames: of a batch, see `mmembed.data.example.batches`.
        threads: embed the batches.
        on_progress: called with the number of clips read so far.
        on_commit: called with the number of a shard that is whole.
    """
    begun_with = deque[tuple[int, Fingerprints]]()

    def sources() -> Iterator[Source]:
        """Those of a shard are looked at before the first of them is given out."""
        for number in numbers:
            prints = Fingerprints()
            prints.take(plan.inputs(number))
            begun_with.append((number, prints))
            yield from plan.clips(number)

    loaded, done = load(sources()), 0
    opened, begun = deque[_Shard](), deque[Callable[[], None]]()
    with ExitStack() as stack:
        for first in loaded:
            number, prints = begun_with.popleft()
            while len(opened) == MOST_OPEN:
                begun.popleft()()
            shard = stack.enter_context(_Shard(plan, number, provenance, prints))
            opened.append(shard)
            for batch in batches(shard.usable(itertools.chain((first,), loaded)), frames):
                records = threads.submit(content, batch, [*shard.failed])
                begun.append(partial(shard.write, records))
                if len(begun) > threads.count + WAITING:
                    begun.popleft()()
                on_progress(done + shard.read)
            done += shard.read
            on_progress(done)
            begun.append(partial(_commit, opened, on_commit))
        while begun:
            begun.popleft()()


def _commit(opened: deque[_Shard], on_commit: Callable[[int], None]) -> None:
    opened[0].commit()
    on_commit(opened.popleft().number)


class _Shard(ExitStack):
    """The shards of one number that are being written.

    Attributes:
        number: theirs.
        read: clips read so far.
        failed: for each folder's subset, key -> what failed.
    """

    def __init__(
        self,
        plan: Plan,
        number: int,
        provenance: Callable[[Subset], Mapping[str, Any]],
        prints: Fingerprints,
    ) -> None:
        super().__init__()
        self.number, self.read = number, 0
        self._names = {source.key: source.name for source in plan.clips(number)}
        self._paths = {plan.folders[f]: shard_path(f, number) for f in plan.missing(number)}
        self.failed: dict[Subset, dict[str, Failure]] = {subset: {} for subset in self._paths}
        self._listed: dict[Subset, list[Failure]] = {subset: [] for subset in self._paths}
        self._prints = prints
        self._put: dict[Subset, Callable[[Record], None]] = {}
        for subset, path in self._paths.items():
            # The list is filled before the index, which holds it, is written.
            made = {"fingerprints": prints.digests, "failed": self._listed[subset]}
            writer = shard_writer(path, {**provenance(subset), **made})
            self._put[subset] = self.enter_context(writer)

    def usable(self, loaded: Iterator[Example | DataError]) -> Iterator[Example]:
        """Those of its clips that could be decoded; features of others no encoder could read."""
        for key in self._names:
            example = next(loaded)
            self.read += 1
            if isinstance(example, Example):
                yield replace(example, features={})
            else:
                for subset in self.failed:
                    self._fail(subset, key, example)

    def write(self, embedded: Future[Embedded]) -> None:
        """Write the records of a batch, once they are there."""
        for subset, records in embedded.result().items():
            for key, record in records.items():
                if isinstance(record, DataError):
                    self._fail(subset, key, record)
                else:
                    self._put[subset](record)

    def commit(self) -> None:
        """Make the shards complete."""
        for subset, failed in self.failed.items():
            self._listed[subset][:] = [failed[key] for key in self._names if key in failed]
        self.close()
        for path in self._paths.values():
            self._prints.keep(path)

    def _fail(self, subset: Subset, key: str, error: DataError) -> None:
        name = self._names[key]
        message = f"{name}: {error.message}"
        self.failed[subset][key] = {"item": name, "reason": error.reason, "message": message}


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

    def embed(
        self,
        examples: Sequence[Example],
        subsets: Sequence[Subset],
        inputs: ClipInputs | None = None,
    ) -> Embedded:
        """The records of a batch for each stream subset; an error where a clip has none of its
        streams, or a vector is not finite.

        Args:
            examples: of the batch.
            subsets: those wanted. The layers of each stream are computed once for all of them.
            inputs: what `Embedder.pack` made of the examples.
        """
        embedded: Embedded = {}
        on_device = inputs and inputs.to(self.embedder.device)
        for subset in subsets:
            own = [example.only(subset) for example in examples]
            held = [example for example in own if example.streams]
            records = iter(self._embed(held, on_device and on_device.only(subset)))
            missing = f"has none of {', '.join(subset)}"
            embedded[subset] = {
                one.key: next(records) if one.streams else DataError(one.key, "no_streams", missing)
                for one in own
            }
        return embedded

    def _embed(
        self, examples: Sequence[Example], inputs: ClipInputs | None
    ) -> list[Record | DataError]:
        if not examples:
            return []
        half = self.precision == "bf16"
        with torch.autocast(self.embedder.device.type, torch.bfloat16, enabled=half):
            words = "word" in self.granularity
            found = self.embedder.embed(examples, words=words, inputs=inputs)
            steps: Sequence[Array | None] = [None] * len(examples)
            if "steps" in self.granularity:
                steps = encode_steps(self.embedder, examples, inputs)
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
