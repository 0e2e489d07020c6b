"""Which items make which batch: a function of the seed and the epoch, never of the machines.

Items are numbers. With sampling weights an item may come several times in an epoch: of `n` items,
number `i + k * n` is the k-th repeat of item `i`, so that a number tells one draw from another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SMALLEST: Final = 8  # items of a random batch, however long they are

Integers = NDArray[np.integer[Any]]


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts; the only source of randomness in training."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


@dataclass(frozen=True)
class EpochPlan:
    """The global batches of an epoch: `plan[step]` holds the items of a step.

    Attributes:
        order: all items of the epoch, each batch in one piece.
        starts: (len(plan),) where the batch of each step starts in `order`.
        ends: (len(plan),) where it ends.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, step: int) -> NDArray[np.int64]:
        return self.order[self.starts[step] : self.ends[step]]


def plan_epoch(
    lengths: Sequence[int] | Integers,
    budget: int,
    *,
    seed: int,
    epoch: int,
    pool: int = 0,
    drawn: NDArray[np.int64] | None = None,
) -> EpochPlan:
    """Shuffle an epoch and cut it into global batches; every item drawn comes once.

    Random batches (`pool` 0) have about `budget` frames and `SMALLEST` items at least; the last one
    is joined to the one before it when it has less than half the budget. They suit packed sequences
    and small corpora: nothing is wasted on mixed lengths, and items of like length are often of one
    corpus. Otherwise so many shuffled items at a time are sorted by length, batches are filled as
    long as their padded frames (items times longest) stay within the budget, and the batches are
    shuffled. An item longer than that is a batch of its own; the last batch may be a small one.

    Args:
        lengths: frames of each item.
        budget: frames of a batch over all processes.
        seed: of the run.
        epoch: counts from 0.
        pool: items sorted together; many times those of a batch, or batches are badly filled.
        drawn: the items of this epoch, as from `draw`; None = each once.
    """
    lengths = np.asarray(lengths)
    generator = np.random.default_rng(derive_seed(seed, "plan", epoch))
    count = len(lengths) if drawn is None else len(drawn)
    order = _shuffled(count, generator) if pool else generator.permutation(count)
    if drawn is not None:
        order = drawn[order]
    if not pool:
        ends = np.array(_cut_random(lengths.take(order, mode="wrap"), budget), dtype=np.int64)
        return EpochPlan(order, np.append(0, ends)[:-1], ends)
    starts = np.array(_sort_and_cut(order, lengths, budget, pool), dtype=np.int64)
    ends = np.append(starts, len(order))[1:]
    steps = generator.permutation(len(starts))
    return EpochPlan(order, starts[steps], ends[steps])


def _shuffled(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The numbers below `count`, put at random into buckets that fit the cache, each shuffled.

    Any order is as likely (Rao 1961, Sandelius 1962), in half the time of `permutation` for
    millions.
    """
    bucket = generator.integers(0, 256, count, dtype=np.uint8)
    order = bucket.argsort(kind="stable")
    for part in np.split(order, np.bincount(bucket, minlength=256).cumsum()):
        generator.shuffle(part)
    return order


def _cut_random(frames: Integers, budget: int) -> list[int]:
    """Where batches end that stop at the item which fills them."""
    total = frames.cumsum(dtype=np.int64)
    ends, start, done = [], 0, 0
    while True:
        end = max(int(total.searchsorted(done + budget)) + 1, start + SMALLEST)
        if end > len(frames):
            break
        ends.append(end)
        start, done = end, int(total[end - 1])
    if start < len(frames):
        if ends and total[-1] - done < budget // 2:
            ends.pop()
        ends.append(len(frames))
    return ends


def _sort_and_cut(order: Integers, lengths: Integers, budget: int, pool: int) -> list[int]:
    """Sort each pool of `order` in place, longest first; where batches start.

    What is left of a pool when no full batch is to be had any more, its shortest items, goes into
    the next one.
    """
    longest = int(lengths.max(initial=1))
    # Stable sorting of 16-bit numbers is several times as fast as of larger ones.
    missing = (longest - lengths).astype(np.min_scalar_type(longest))
    starts, start, last = [], 0, len(order)
    for stop in range(min(pool, last), last + pool, pool):
        stop = min(stop, last)
        items = order[start:stop]
        missed = missing.take(items, mode="wrap")  # some may be repeats
        by_length = missed.argsort(kind="stable")  # items of one length stay shuffled
        items[:] = items[by_length]
        frames = (longest - missed[by_length].astype(np.int64)).data
        first = start
        while start < stop:
            size = max(1, budget // max(1, frames[start - first]))
            if start + size > stop and stop < last:
                break
            starts.append(start)
            start = min(start + size, stop)
    return starts


def draw(
    sizes: Sequence[int], weights: Sequence[float], *, seed: int, epoch: int
) -> NDArray[np.int64]:
    """The items of an epoch when corpora have sampling weights.

    An item of a corpus with weight 2.5 comes twice or three times. After any number of epochs each
    item has come as often as the others of its corpus, give or take once: with weight 0.5 two
    epochs have every item. An epoch has weight times size items of a corpus, rounded up or down.

    Args:
        sizes: items of each corpus; they are numbered one corpus after another.
        weights: how often an item of each corpus comes in an epoch, on average.
        seed: of the run.
        epoch: counts from 0.

    Returns:
        Item numbers, as `plan_epoch` wants them: first all first draws, then the first repeats.
    """
    counts = np.empty(sum(sizes), dtype=np.int64)
    start = 0
    for corpus, (size, weight) in enumerate(zip(sizes, weights, strict=True)):
        generator = np.random.default_rng(derive_seed(seed, "draw", corpus))
        phase = (generator.permutation(size) + 0.5) / size
        done, after = (np.floor(weight * e + phase) for e in (epoch, epoch + 1))
        counts[start : start + size] = after - done
        start += size
    repeats = range(int(counts.max(initial=0)))
    parts = [np.flatnonzero(counts > k) + k * len(counts) for k in repeats]
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def partition_batch(
    batch: Sequence[int] | Integers,
    lengths: Sequence[int] | Integers,
    *,
    rank: int,
    world: int,
    splits: int = 1,
) -> list[NDArray[np.int64]]:
    """One process's part of a global batch, cut into `splits` micro-batches of like size.

    Items are assigned longest first, forth and back, so that processes get nearly equal frames.
    Fewer micro-batches come back when there are fewer items, none when there are too few for all.

    Args:
        batch: items, as in a plan.
        lengths: frames of each item, repeats aside.
        rank: of this process.
        world: processes.
        splits: micro-batches of each process.
    """
    items = np.asarray(batch, dtype=np.int64)
    frames = np.asarray(lengths, dtype=np.int64).take(items, mode="wrap")
    ranked = items[np.lexsort((items, -frames))]
    shards = world * splits
    rounds, positions = np.divmod(np.arange(len(ranked)), shards)
    owners = np.where(rounds % 2 == 0, positions, shards - 1 - positions)
    mine = [ranked[owners == split * world + rank] for split in range(splits)]
    return [items for items in mine if len(items)]
