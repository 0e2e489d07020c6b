"""From a plan to batches: items out of shards, and worker processes that make batches ahead.

What a step holds is a function of the plan, the seed and the rank; how many workers make it changes
nothing but the time it takes. The workers are those of `torch.utils.data.DataLoader`.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from mmembed.batch import UNLABELLED, Batch
from mmembed.data.dataset import Examples
from mmembed.data.frozen_layers import FrozenLayers
from mmembed.data.item import EMPTY, Item, augment, collate, sure_frames
from mmembed.data.sampler import EpochPlan, Integers, derive_seed, partition_batch
from mmembed.data.shards.layout import Record
from mmembed.data.shards.records import CROPS, PACKED_CROPS, SOUND
from mmembed.errors import CorruptError, MmembedError, UsageError
from mmembed.features.audio import SAMPLES_PER_FRAME, log_mel, to_float
from mmembed.features.text import MASK, Subwords, Vocabulary
from mmembed.settings.pretrain import Augmentation
from mmembed.streams import STREAMS

TIMEOUT: Final = 300.0  # seconds for one step; a reader that hangs ends the run

Job = TypeVar("Job")
Result = TypeVar("Result")


class SpeechItems:
    """Prepared records as items of speech recognition and speaker classification.

    What is text of them stands in the shards' indices: it is encoded once, here. Of a record only
    audio and video are read, as arrays whose checksums, types and sizes are compared. So no row is
    validated again, and nothing in a record's JSON can matter.

    Args:
        examples: the records; their face crops have one form.
        streams: those to read; others are missing.
        transcripts: normalised, of all records, "" where there is none; text streams are these.
        subwords: of the text stream.
        alphabet: output units of speech recognition.
        speakers: class ids; a speaker not among them is UNLABELLED.
        samples: whether audio is read as samples in [-1, 1], else as log-mel.
        layers: of the audio stream, read instead of sound.

    Attributes:
        lengths: (N, 3) samples, pictures and characters, in the order of `STREAMS`; 0 = missing.
        frames: (N,) int32 of the 25 Hz frame grid: those of the audio, else of the video, else the
            length of the text.
        speakers: (N,) class ids.
        units: (N,) lists of the output units of each transcript.
    """

    def __init__(
        self,
        examples: Examples,
        streams: Sequence[str],
        transcripts: Sequence[str],
        subwords: Subwords,
        alphabet: Vocabulary,
        speakers: Mapping[str, int],
        *,
        samples: bool = False,
        layers: FrozenLayers | None = None,
    ) -> None:
        self.examples = examples
        self.transcripts = transcripts
        columns = [examples.numbers(f"lengths.{s}") * (s in streams) for s in STREAMS]
        self.lengths = np.stack(columns, axis=1)
        audio, video, text = columns
        heard = sure_frames(audio) if samples else -(-audio // SAMPLES_PER_FRAME)
        frames = np.where(audio > 0, heard, np.where(video > 0, video, text))
        self.frames: NDArray[np.int32] = frames.astype(np.int32)
        names = examples.texts("speaker").fill_null("").to_pylist()
        self.speakers = np.array([speakers.get(name, UNLABELLED) for name in names], np.int64)
        # Of Arrow: one piece of memory, which forked workers share.
        texts = examples.texts("transcript").fill_null("") if subwords.as_written else None
        read = transcripts if texts is None else texts.to_pylist()
        self._tokens = pa.array(map(subwords.encode, read), pa.list_(pa.int32()))
        self._samples, self._layers = samples, layers
        self._crop = examples.crops.shape if "video" in streams else ()
        self.units = pa.array(map(alphabet.encode, transcripts), pa.list_(pa.int32()))

    def __len__(self) -> int:
        return len(self.examples)

    def read(self, number: int) -> Item:
        """One item.

        Raises:
            CorruptError: the bytes of the record are not those written, or other features.
        """
        shards = self.examples.sets[self.examples.folders[number]]
        audio, video, text = self.lengths[number].tolist()
        wanted = [CROPS, PACKED_CROPS, *([SOUND] if self._layers is None else [])]
        record = shards.read(int(self.examples.records[number]), wanted)
        inputs = dict(EMPTY)
        if audio and self._layers is not None:
            inputs["audio"] = self._layers.read(record.key)
        elif audio:
            heard = _stream(record, SOUND, np.int16, (audio,))
            inputs["audio"] = to_float(heard) if self._samples else log_mel(heard)
        if video:
            name = PACKED_CROPS if PACKED_CROPS in record.members else CROPS
            shape = (video, *self._crop)
            inputs["video"] = torch.from_numpy(_stream(record, name, np.uint8, shape))
        if text:
            inputs["text"] = torch.tensor(self._tokens[number].as_py(), dtype=torch.int64)
        return Item(
            key=record.key,
            inputs=inputs,
            transcript=torch.tensor(self.units[number].as_py(), dtype=torch.int64),
            speaker=int(self.speakers[number]),
            audio_frames=int(self.frames[number]) if audio and self._samples else 0,
        )


def _stream(record: Record, name: str, kind: type, shape: tuple[int, ...]) -> NDArray[Any]:
    """A stream of this type and shape."""
    values: NDArray[Any] | None = record.members.get(name)
    if values is None or values.shape != shape or values.dtype != kind:
        found = "nothing" if values is None else f"{values.dtype} {values.shape}"
        raise CorruptError(
            f"{record.key}: not a record of prepared features ({name} is {found}, not "
            f"{np.dtype(kind)} {shape}); prepare the corpus again"
        )
    return values


class Draw(NamedTuple):
    """An item of a step: its number, the seed of its augmentation, and whether its labels count."""

    number: int
    seed: int
    labelled: bool = True


@dataclass(frozen=True)
class TrainingLoader:
    """How one process makes its part of each step.

    Attributes:
        item: reads a training item by its number.
        lengths: frames of each item.
        augmentation: what is done to an item; random, from the seed, the epoch and its number.
        seed: of the run.
        rank: of this process.
        world: processes.
        splits: micro-batches of each process.
        pin_memory: put batches where a GPU reads them by itself.
        mask: id of a hidden token of the text stream.
    """

    item: Callable[[int], Item]
    lengths: Integers
    augmentation: Augmentation
    seed: int
    rank: int = 0
    world: int = 1
    splits: int = 1
    pin_memory: bool = False
    mask: int = MASK

    def draw(self, epoch: int, batch: Integers) -> list[list[Draw]]:
        """The part of this process in a global batch: the items of one micro-batch at least.

        Where there are fewer items than processes, those without take the first item without its
        labels: they compute along, as all must, and change nothing.
        """
        ranks = {"rank": self.rank, "world": self.world, "splits": self.splits}
        parts = partition_batch(batch, self.lengths, **ranks)
        if not parts:
            return [[self._draw(epoch, int(batch[0]))._replace(labelled=False)]]
        return [[self._draw(epoch, number) for number in part.tolist()] for part in parts]

    def micro_batches(self, draws: Sequence[Sequence[Draw]]) -> list[Batch]:
        """Read and augment items, and put them into batches."""
        return [collate([self._item(draw) for draw in part]) for part in draws]

    def load(
        self, plan: EpochPlan, epoch: int, *, start: int = 0, workers: int = 0
    ) -> AbstractContextManager[Iterator[list[Batch]]]:
        """The micro-batches of each step of an epoch, from step `start` on; see `ahead`."""
        steps = (self.draw(epoch, plan[step]) for step in range(start, len(plan)))
        return ahead(self.micro_batches, steps, workers, pin_memory=self.pin_memory)

    def _draw(self, epoch: int, drawn: int) -> Draw:
        repeat, number = divmod(drawn, len(self.lengths))
        parts = (self.seed, "augment", epoch, number, *([repeat] if repeat else []))
        return Draw(number, derive_seed(*parts))

    def _item(self, draw: Draw) -> Item:
        generator = torch.Generator().manual_seed(draw.seed)
        item = augment(self.item(draw.number), self.augmentation, generator, self.mask)
        return item if draw.labelled else Item(item.key, item.inputs)


@contextmanager
def ahead(
    make: Callable[[Job], Result],
    jobs: Iterable[Job],
    workers: int,
    *,
    timeout: float = TIMEOUT,
    pin_memory: bool = False,
) -> Iterator[Iterator[Result]]:
    """`map(make, jobs)`, in order, by forked processes each of which is one job ahead.

    The processes end with the block, or with this process.

    Args:
        make: makes one result; it and what it reaches are inherited, not copied.
        jobs: small values; taken one by one, as many ahead as there are workers.
        workers: processes, one thread each; 0 = this process makes each result when it is due.
        timeout: seconds that one result may take once it is waited for.
        pin_memory: see `TrainingLoader`.

    Raises:
        UsageError: a negative number of workers.
        MmembedError: within the block: what `make` raised; or a worker died, or gave nothing in
            time.
    """
    if workers < 0:
        raise UsageError(f"{workers} loader workers: 0 or more")
    others = multiprocessing.active_children()
    results: Any = iter(
        DataLoader(
            _Made(make),
            batch_size=None,
            sampler=jobs,
            num_workers=workers,
            collate_fn=lambda result: result,  # torch would turn tuples into lists
            pin_memory=pin_memory,
            timeout=timeout if workers else 0,
            worker_init_fn=_leave_signals,
            multiprocessing_context="fork" if workers else None,
            prefetch_factor=1 if workers else None,
            generator=torch.Generator(),  # the global one stays as it is
        )
    )
    started = [child for child in multiprocessing.active_children() if child not in others]
    try:
        yield map(_raised, results)
    except RuntimeError as error:  # also in the middle of a step: torch learns of it by a signal
        if not str(error).startswith("DataLoader"):
            raise
        raise _failure(str(error), started, timeout) from None
    finally:
        if workers:
            results._shutdown_workers()
        for process in started:  # what hangs; it ignores the SIGTERM that DataLoader sends
            process.kill()
            process.join()


class _Made(Dataset[Any]):
    """The results by their jobs; an error that names its file is one, since it has to stay whole
    on its way from a worker.
    """

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __getitem__(self, job: Any) -> Any:
        try:
            return self._make(job)
        except (MmembedError, OSError) as error:
            return error


def _raised(result: Any) -> Any:
    if isinstance(result, Exception):
        raise result
    return result


def _leave_signals(worker: int) -> None:
    """Signals are for the trainer, which saves its state first."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def _failure(said: str, workers: Iterable[BaseProcess], timeout: float) -> MmembedError:
    """What happened to the workers, in one line."""
    if "timed out" in said:
        return MmembedError(
            f"a loader worker gave nothing for {timeout:g} s: look for a disk or network that "
            "hangs, then run the same again to continue"
        )
    code = next((worker.exitcode for worker in workers if worker.exitcode), 0)
    if code < 0:
        return MmembedError(
            f"a loader worker was killed by {signal.Signals(-code).name}, perhaps for want of "
            "memory (SIGKILL) or of room in /dev/shm (SIGBUS): run the same again to continue, "
            "with fewer workers"
        )
    return MmembedError(f"a loader worker failed (exit code {code}): see above")
