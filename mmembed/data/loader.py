"""Batches of a plan, step by step, made by worker processes ahead of the training that uses them.

What a step holds is a function of the plan, the seed and the place among the processes; how many
workers make it changes nothing but the time it takes.
"""

from __future__ import annotations

import atexit
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final, Generic, TypeVar

import torch

from mmembed.batch import UNLABELLED, Batch
from mmembed.data.augment import Augmentation, augment
from mmembed.data.collate import collate
from mmembed.data.item import EMPTY, Item
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.data.sampler import EpochPlan, Integers, derive_seed, share
from mmembed.errors import MmembedError, UsageError

TIMEOUT: Final = 300.0  # seconds for one step; a reader that hangs ends the run

Job = TypeVar("Job")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Steps:
    """How one process makes its part of a step.

    Attributes:
        item: reads a training item by its number.
        lengths: frames of each item.
        augmentation: what is done to an item; random, from the seed, the epoch and its number.
        seed: of the run.
        rank: of this process.
        world: processes.
        splits: micro-batches of each process.
    """

    item: Callable[[int], Item]
    lengths: Integers
    augmentation: Augmentation
    seed: int
    rank: int = 0
    world: int = 1
    splits: int = 1

    def micro_batches(self, epoch: int, drawn: Integers) -> list[Batch]:
        """The part of this process in the global batch `drawn`: one micro-batch at least.

        Where there are fewer items than processes, those without take the first item stripped of
        its labels: they compute along, as all must, and change nothing.
        """
        hands = share(drawn, self.lengths, rank=self.rank, world=self.world, splits=self.splits)
        if not hands:
            return [collate([_unlabelled(self._item(epoch, int(drawn[0])))])]
        return [collate([self._item(epoch, number) for number in hand.tolist()]) for hand in hands]

    def load(
        self, plan: EpochPlan, epoch: int, *, start: int = 0, workers: int = 0
    ) -> Generator[list[Batch], None, None]:
        """The micro-batches of each step of an epoch, from step `start` on; see `ahead`."""
        steps = (plan[step] for step in range(start, len(plan)))
        return ahead(lambda drawn: self.micro_batches(epoch, drawn), steps, workers)

    def _item(self, epoch: int, drawn: int) -> Item:
        repeat, number = divmod(drawn, len(self.lengths))
        parts = (self.seed, "augment", epoch, number, *([repeat] if repeat else []))
        generator = torch.Generator().manual_seed(derive_seed(*parts))
        return augment(self.item(number), self.augmentation, generator)


def _unlabelled(item: Item) -> Item:
    return replace(
        item,
        transcript=EMPTY["text"],
        masked_text=EMPTY["text"],
        speaker=UNLABELLED,
        sentiment=float("nan"),
        emotions=(float("nan"),) * len(EMOTIONS),
    )


def ahead(
    make: Callable[[Job], Made], jobs: Iterable[Job], workers: int, timeout: float = TIMEOUT
) -> Generator[Made, None, None]:
    """`map(make, jobs)`, in order, by forked processes each of which is one job ahead.

    Close the iterator when it is left early (`contextlib.closing`): that ends the processes.

    Args:
        make: makes one result; it and what it reaches are inherited, not copied.
        jobs: small values; taken one by one, as many ahead as there are workers.
        workers: processes, one thread each; 0 = the calling one makes what is asked for next.
        timeout: seconds that one result may take once it is waited for.

    Raises:
        UsageError: a negative number of workers.
        MmembedError: what `make` raised; or a worker died or gave nothing in time.
    """
    if workers < 0:
        raise UsageError(f"{workers} loader workers: 0 or more")
    if workers == 0:
        yield from map(make, jobs)
        return
    team = _Team(make, workers, timeout)
    atexit.register(team.stop)  # multiprocessing would wait for workers that ignore SIGTERM
    try:
        yield from team.run(iter(jobs))
    finally:
        team.stop()
        atexit.unregister(team.stop)


class _Team(Generic[Job, Made]):
    """Workers that are given jobs in turn and asked for results in the same turn.

    A worker has one job at a time, so that neither side ever writes to a full pipe that the other
    does not read.
    """

    def __init__(self, make: Callable[[Job], Made], workers: int, timeout: float) -> None:
        self._timeout = timeout
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        context = multiprocessing.get_context("fork")
        for _ in range(workers):
            ours, theirs = context.Pipe()
            self._pipes.append(ours)
            process = context.Process(
                target=_work, args=(make, theirs, tuple(self._pipes)), daemon=True
            )
            process.start()
            theirs.close()
            self._processes.append(process)

    def run(self, jobs: Iterator[Job]) -> Iterator[Made]:
        busy: deque[int] = deque()

        def give(workers: Iterable[int]) -> None:
            for worker, job in zip(workers, jobs, strict=False):
                self._give(worker, job)
                busy.append(worker)

        give(range(len(self._pipes)))
        while busy:
            worker = busy.popleft()
            made = self._take(worker)
            give([worker])
            yield made

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            process.join()
            pipe.close()

    def _give(self, worker: int, job: Job) -> None:
        try:
            self._pipes[worker].send(job)
        except OSError:
            raise self._died(worker) from None

    def _take(self, worker: int) -> Made:
        try:
            if not self._pipes[worker].poll(self._timeout):
                raise MmembedError(
                    f"a loader worker gave nothing for {self._timeout:g} s: look for a disk or "
                    "network that hangs, then run the same again to continue"
                )
            made: Made | MmembedError = self._pipes[worker].recv()
        except (EOFError, OSError):
            raise self._died(worker) from None
        if isinstance(made, MmembedError):
            raise made
        return made

    def _died(self, worker: int) -> MmembedError:
        process = self._processes[worker]
        process.join(1)
        if process.exitcode is not None and process.exitcode < 0:
            name = signal.Signals(-process.exitcode).name
            return MmembedError(
                f"a loader worker was killed by {name}, perhaps for want of memory (SIGKILL) or of "
                "room in /dev/shm (SIGBUS): run the same again to continue, with fewer workers"
            )
        return MmembedError(f"a loader worker failed (exit code {process.exitcode}): see above")


def _work(make: Callable[[Job], Made], pipe: Connection, inherited: Iterable[Connection]) -> None:
    """A worker's life: it ends when the process that started it does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # for the trainer, which saves its state first
    torch.set_num_threads(1)
    for other in inherited:
        other.close()  # or the end of the trainer would not be the end of its pipes
    made: Made | MmembedError
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            made = make(job)
        except MmembedError as error:
            made = error
        try:
            pipe.send(made)
        except OSError:
            return
