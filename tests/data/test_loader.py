"""What a step holds does not depend on who makes it; workers that fail end the run, not hang it."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pretraining import clip
from helpers.support import random_item

from mmembed.batch import Batch
from mmembed.data.dataset import Examples
from mmembed.data.item import Item
from mmembed.data.loader import SpeechItems, TrainingLoader, ahead
from mmembed.data.sampler import draw, plan_epoch
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import CROPS, SOUND, to_record
from mmembed.errors import CorruptError, DataError, MmembedError, UsageError
from mmembed.features.audio import log_mel
from mmembed.features.text import Vocabulary
from mmembed.settings.pretrain import Augmentation
from mmembed.streams import STREAMS, stream_subsets

SUBSETS = [*stream_subsets(), STREAMS, STREAMS]
LENGTHS = np.array([16 + 9 * number for number in range(len(SUBSETS))])


def item(number: int) -> Item:
    return random_item(SUBSETS[number], number)


def drawn(epoch: int) -> np.ndarray:
    return draw([4, 5], [2.5, 0.5], seed=1, epoch=epoch)


def loader_of(rank: int, world: int) -> TrainingLoader:
    return TrainingLoader(item, LENGTHS, Augmentation(), seed=1, rank=rank, world=world)


def rows_of(batch: Batch) -> Iterator[bytes]:
    """Key and streams of each item, but for one of a process without an item of its own."""
    streams = [batch.inputs[name].pad() for name in STREAMS]
    for row, key in enumerate(batch.keys):
        if batch.targets["speaker"][row] >= 0 or batch.labelled("masked_text")[row]:
            yield key.encode() + b"".join(x.item(row).numpy().tobytes() for x in streams)


def global_order(workers: int, world: int, start: int = 0) -> str:
    """A digest of the keys and the augmented bytes of two epochs, in the order of the plan."""
    digest = hashlib.sha256()
    for epoch in (0, 1):
        plan = plan_epoch(LENGTHS, 150, seed=1, epoch=epoch, pool=6, drawn=drawn(epoch))
        with ExitStack() as stack:
            loaders = [
                stack.enter_context(
                    TrainingLoader(
                        item, LENGTHS, Augmentation(), seed=1, rank=rank, world=world
                    ).load(plan, epoch, start=start, workers=workers)
                )
                for rank in range(world)
            ]
            for step, parts in enumerate(zip(*loaders, strict=True), start):
                rows = [row for part in parts for batch in part for row in rows_of(batch)]
                assert len(rows) == len(plan[step])
                digest.update(repr((step, plan[step].tolist(), sorted(rows))).encode())
    return digest.hexdigest()


@pytest.mark.slow
def test_order_and_content_do_not_depend_on_workers_or_world() -> None:
    """R7: one digest for workers {0, 1, 2} x world {1, 2, 4}."""
    found = {(w, n): global_order(w, n) for w in (0, 1, 2) for n in (1, 2, 4)}
    assert len(set(found.values())) == 1, found


def test_a_position_is_a_step_number() -> None:
    """R16: going on at step 2 gives what an undisturbed epoch gives there, with any workers."""
    plan = plan_epoch(LENGTHS, 150, seed=1, epoch=0, pool=6)
    loader = TrainingLoader(item, LENGTHS, Augmentation(), seed=1)
    with loader.load(plan, 0) as steps:
        whole = [batch.keys for part in steps for batch in part]
    for workers in (0, 2):
        with loader.load(plan, 0, start=2, workers=workers) as steps:
            rest = [batch.keys for part in steps for batch in part]
        assert rest == whole[2:] and len(rest) == len(plan) - 2


def test_a_process_without_items_computes_along_without_labels() -> None:
    loaders = [loader_of(rank, 4) for rank in range(4)]
    parts = [loader.micro_batches(loader.draw(0, np.array([6, 7]))) for loader in loaders]
    assert [[len(batch) for batch in part] for part in parts] == [[1], [1], [1], [1]]
    counts = [[b.count(name) for name in ("speaker", "transcript")] for (b,) in parts]
    assert counts[0] == counts[1] == [1, 1]
    assert counts[2] == counts[3] == [0, 0]
    assert all(not part[0].count("masked_text") for part in parts[2:])


def test_repeats_are_augmented_anew_and_first_draws_as_without_weights() -> None:
    loader = TrainingLoader(item, LENGTHS, Augmentation(keep_streams=1.0), seed=1)
    first, repeat, plain = (
        loader.micro_batches(loader.draw(0, np.array([number])))[0].inputs["audio"].values
        for number in (6, 6 + len(LENGTHS), 6)
    )
    assert torch.equal(first, plain)
    assert not torch.equal(first, repeat)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order_and_jobs_are_taken_as_needed(workers: int) -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for number in count():
            taken.append(number)
            yield number

    with ahead(lambda job: (job, os.getpid()), jobs(), workers) as made:
        found = list(islice(made, 10))
    assert [job for job, _ in found] == list(range(10))
    assert len({pid for _, pid in found}) == max(1, workers)
    assert len(taken) <= 10 + workers
    for given, expected in (([-3, 1], [3, 1]), ([], [])):
        with ahead(abs, given, workers) as results:
            assert list(results) == expected
    with pytest.raises(UsageError, match="-1 loader workers: 0 or more"), ahead(abs, [1], -1):
        pass


def failing(job: int) -> int:
    if job == 3:
        raise DataError("clip-3", "damaged", "cannot be read")
    if job == 4:
        raise CorruptError("shard-000001.tar: damaged")
    if job == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    if job == 6:
        os.kill(os.getpid(), signal.SIGSTOP)
    if job == 7:
        os._exit(3)
    return job


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bad", "kind", "words"),
    [
        (3, DataError, "clip-3: cannot be read"),
        (4, CorruptError, "shard-000001.tar: damaged"),
        (5, MmembedError, "killed by SIGKILL, perhaps for want of memory"),
        (6, MmembedError, "gave nothing for 0.5 s"),
        (7, MmembedError, r"failed \(exit code 3\)"),
    ],
)
def test_a_worker_that_fails_ends_the_run_with_one_line(
    bad: int, kind: type[MmembedError], words: str
) -> None:
    started, made = time.monotonic(), []
    with (
        pytest.raises(kind, match=words) as caught,
        ahead(failing, [0, 1, bad, 2, 0, 1], 2, timeout=0.5) as results,
    ):
        made += list(results)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 10
    if isinstance(caught.value, DataError):
        assert caught.value.reason == "damaged"


@pytest.mark.slow
def test_workers_leave_signals_to_the_trainer_and_end_with_it() -> None:
    """SIGTERM to a whole job must not cost the checkpoint; a killed trainer leaves nobody."""
    read, write = os.pipe()
    trainer = os.fork()
    if trainer == 0:
        try:
            with ahead(lambda job: os.getpid(), count(), 2) as made:
                workers = [next(made), next(made)]
                for pid in workers:
                    os.kill(pid, signal.SIGTERM)
                assert [next(made), next(made)] == workers
                os.write(write, repr(workers).encode())
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(trainer, 0)
    os.close(write)
    workers = [int(pid) for pid in os.read(read, 1000).decode().strip("[]").split(",")]
    os.close(read)
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def speech_items(folder: Path, change: Callable[[Record], Record]) -> SpeechItems:
    """Of two clips, their records changed."""
    records = [change(Record(*to_record(clip(number, 80)))) for number in (0, 1)]
    write_shard(shard_path(folder, 0), records, {})
    examples = Examples([folder])
    transcripts = examples.transcripts()
    units = Vocabulary.train(transcripts, 40, "char")
    return SpeechItems(examples, STREAMS, transcripts, units, units, {"made-1": 0})


def test_an_item_is_that_of_its_record_without_its_json(tmp_path: Path) -> None:
    def broken(record: Record) -> Record:
        return replace(record, members={**record.members, "json": {"utterance": {"key": 3}}})

    items = speech_items(tmp_path, broken)
    read, example = items.read(1), clip(1, 80)
    assert example.audio is not None and example.video is not None
    assert torch.equal(read.inputs["audio"], log_mel(example.audio))
    assert torch.equal(read.inputs["video"], torch.from_numpy(example.video))
    assert torch.equal(read.inputs["text"], read.transcript) and len(read.transcript) > 10
    assert (read.key, read.speaker, items.read(0).speaker) == ("made-01", 0, -1)
    assert items.frames.tolist() == [20, 20]


@pytest.mark.parametrize(
    ("name", "values", "found"),
    [
        (SOUND, None, "nothing, not int16"),
        (SOUND, np.zeros(12_799, np.int16), r"int16 \(12799,\), not int16 \(12800,\)"),
        (CROPS, None, "nothing, not uint8"),
        (CROPS, np.zeros((19, 64, 64), np.uint8), r"uint8 \(19, 64, 64\), not uint8"),
        (CROPS, np.zeros((20, 64, 32), np.uint8), r"uint8 \(20, 64, 32\), not uint8"),
        (CROPS, np.zeros((20, 64, 64)), r"float64 \(20, 64, 64\), not uint8"),
        (CROPS, np.zeros((20, 64, 64), "S2"), r"\|S2 \(20, 64, 64\), not uint8"),
    ],
)
def test_streams_that_are_not_those_of_the_index_are_refused(
    tmp_path: Path, name: str, values: np.ndarray | None, found: str
) -> None:
    def other(record: Record) -> Record:
        members = {n: m for n, m in record.members.items() if n != name}
        return replace(record, members=members | ({} if values is None else {name: values}))

    items = speech_items(tmp_path, other)
    with pytest.raises(CorruptError, match=rf"^made-00: .*\({name} is {found}"):
        items.read(0)
