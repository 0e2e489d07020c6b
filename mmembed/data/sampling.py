"""Which items make which batch: a function of the seed and the epoch, never of the machines."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts; the only source of randomness in training."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def plan_epoch(
    lengths: Sequence[int], budget: int, *, seed: int, epoch: int, smallest: int = 8
) -> list[list[int]]:
    """Cut a shuffled epoch into global batches of about `budget` frames.

    Batches are random, not bucketed by length: packed sequences waste nothing on mixed lengths, and
    a bucket would be nearly one corpus. Every item comes once; the last batch is joined to the one
    before it when it has less than half the budget.

    Args:
        lengths: frames of each item.
        budget: frames of a batch over all processes.
        seed: of the run.
        epoch: counts from 0.
        smallest: the least number of items in a batch, whatever their length.

    Returns:
        Batches as lists of indices into `lengths`.
    """
    order = np.random.default_rng(derive_seed(seed, "plan", epoch)).permutation(len(lengths))
    batches: list[list[int]] = []
    batch: list[int] = []
    frames = 0
    for index in order.tolist():
        batch.append(index)
        frames += lengths[index]
        if frames >= budget and len(batch) >= smallest:
            batches.append(batch)
            batch, frames = [], 0
    if batch and batches and frames < budget // 2:
        batches[-1] += batch
    elif batch:
        batches.append(batch)
    return batches


def share(
    batch: Sequence[int], lengths: Sequence[int], *, rank: int, world: int, splits: int = 1
) -> list[list[int]]:
    """One process's part of a global batch, cut into `splits` micro-batches of like size.

    Items are dealt out longest first, forth and back, so that processes get nearly equal frames.
    Fewer micro-batches come back when there are fewer items.
    """
    ranked = sorted(batch, key=lambda index: (-lengths[index], index))
    hands = world * splits
    mine: list[list[int]] = [[] for _ in range(splits)]
    for place, index in enumerate(ranked):
        lap, seat = divmod(place, hands)
        hand = seat if lap % 2 == 0 else hands - 1 - seat
        if hand % world == rank:
            mine[hand // world].append(index)
    return [hand for hand in mine if hand]
