"""Plans are complete, repeatable, within their budget, and shared fairly."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.data.sampler import EpochPlan, derive_seed, draw, partition_batch, plan_epoch

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=200)
POOLS = st.sampled_from([0, 1, 7, 40, 1000])


def batches(plan: EpochPlan) -> list[list[int]]:
    return [plan[step].tolist() for step in range(len(plan))]


def check_an_epoch(lengths: list[int], budget: int, pool: int, world: int, splits: int) -> None:
    """R6: every item once, and every rank has something to do, or nothing, in every step."""
    plan = plan_epoch(lengths, budget, seed=0, epoch=3, pool=pool)
    assert sorted(i for batch in batches(plan) for i in batch) == list(range(len(lengths)))
    assert batches(plan) == batches(plan_epoch(lengths, budget, seed=0, epoch=3, pool=pool))
    seen: list[int] = []
    for batch in batches(plan):
        assert batch
        if pool:
            longest = max(lengths[i] for i in batch)
            assert len(batch) * longest <= budget or len(batch) == 1
        parts = [
            partition_batch(batch, lengths, rank=r, world=world, splits=splits)
            for r in range(world)
        ]
        assert max(map(len, parts)) <= splits
        seen += [int(i) for mine in parts for cut in mine for i in cut]
    assert sorted(seen) == list(range(len(lengths)))


PLANS = {
    "lengths": LENGTHS,
    "budget": st.integers(1, 3000),
    "pool": POOLS,
    "world": st.integers(1, 8),
    "splits": st.integers(1, 3),
}


@given(**PLANS)
@settings(max_examples=100, deadline=None)
def test_every_item_once_an_epoch_on_all_ranks(**plan: object) -> None:
    check_an_epoch(**plan)  # type: ignore[arg-type]


@pytest.mark.long
@given(**PLANS)
@settings(max_examples=500, deadline=None)
def test_every_item_once_an_epoch_on_all_ranks_500_plans(**plan: object) -> None:
    check_an_epoch(**plan)  # type: ignore[arg-type]


def test_the_order_of_random_batches_is_frozen() -> None:
    """Runs of before go on, and figures stay: batches are those of the first release."""
    lengths = np.random.default_rng(7).integers(50, 500, 500)
    plan = plan_epoch(lengths, 2400, seed=3, epoch=2)
    assert plan[0].tolist() == [215, 442, 399, 285, 249, 46, 137, 495]
    text = repr(batches(plan)).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "214fb6874679710e"


def test_random_batches_reach_the_budget_and_epochs_differ() -> None:
    lengths = [50] * 400
    first = batches(plan_epoch(lengths, 1000, seed=0, epoch=0))
    assert [len(batch) for batch in first] == [20] * 20
    assert first != batches(plan_epoch(lengths, 1000, seed=0, epoch=1))
    assert first != batches(plan_epoch(lengths, 1000, seed=1, epoch=0))


def test_sorted_batches_by_hand() -> None:
    """One pool, longest first: 120 alone, 2 x 40 <= 100, 5 x 20 <= 100, the rest."""
    lengths = [20, 120, 10, 40, 20, 30, 20, 20, 20, 10]
    plan = plan_epoch(lengths, 100, seed=0, epoch=0, pool=10)
    found = sorted([lengths[i] for i in batch] for batch in batches(plan))
    assert found == [[10, 10], [20, 20, 20, 20, 20], [40, 30], [120]]


def test_what_a_pool_leaves_over_goes_into_the_next() -> None:
    """Seven at a time into batches of five: only the last batch of the epoch is a small one."""
    plan = plan_epoch([20] * 33, 100, seed=0, epoch=0, pool=7)
    assert sorted(map(len, batches(plan))) == [3, 5, 5, 5, 5, 5, 5]


def test_sorted_batches_waste_little_and_random_ones_much() -> None:
    generator = np.random.default_rng(0)
    seconds = np.clip(generator.lognormal(math.log(6.2), 0.5, 20_000), 2, 20)
    lengths = (25 * seconds).astype(np.int64)

    def waste(pool: int) -> float:
        plan = plan_epoch(lengths, 2400, seed=0, epoch=0, pool=pool)
        padded = sum(len(plan[s]) * int(lengths[plan[s]].max()) for s in range(len(plan)))
        return 1 - int(lengths.sum()) / padded

    assert waste(0) > 0.4
    assert waste(2_000) < 0.02


def test_items_of_one_length_meet_others_each_epoch() -> None:
    """Sorting by length must not make the same batches again and again."""
    plans = [plan_epoch([50] * 64, 100, seed=0, epoch=epoch, pool=64) for epoch in (0, 1)]
    pairs = [{tuple(sorted(batch)) for batch in batches(plan)} for plan in plans]
    assert len(pairs[0]) == 32
    assert len(pairs[0] & pairs[1]) < 4


@given(lengths=LENGTHS, world=st.integers(1, 4), splits=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_shares_are_a_partition(lengths: list[int], world: int, splits: int) -> None:
    batch = list(range(len(lengths)))
    parts = [
        partition_batch(batch, lengths, rank=r, world=world, splits=splits) for r in range(world)
    ]
    assert sorted(int(i) for mine in parts for cut in mine for i in cut) == batch
    if len(batch) >= world:
        assert all(mine and all(len(cut) for cut in mine) for mine in parts)


def test_two_processes_get_like_amounts() -> None:
    lengths = [400, 300, 200, 100, 90, 80, 70, 60]
    frames = [
        sum(
            lengths[i]
            for cut in partition_batch(range(8), lengths, rank=rank, world=2)
            for i in cut
        )
        for rank in (0, 1)
    ]
    assert frames == [400 + 100 + 90 + 60, 300 + 200 + 80 + 70]


@given(
    size=st.integers(1, 60),
    weight=st.floats(0.05, 4, allow_nan=False),
    seed=st.integers(0, 3),
)
@settings(max_examples=100, deadline=None)
def test_weights_hold_in_each_epoch_and_for_each_item(size: int, weight: float, seed: int) -> None:
    total = np.zeros(size)
    for epoch in range(8):
        items = draw([size], [weight], seed=seed, epoch=epoch)
        assert len(set(items.tolist())) == len(items)
        counts = np.bincount(items % size, minlength=size)
        assert set(counts.tolist()) <= {math.floor(weight), math.ceil(weight)}
        assert abs(len(items) - weight * size) <= 1
        total += counts
        assert np.abs(total - weight * (epoch + 1)).max() <= 1


def test_weights_by_hand() -> None:
    """Four items of weight 0.5, two of 2.5, one of 1: two epochs have 4, 10 and 2 of them."""
    sizes, weights = [4, 2, 1], [0.5, 2.5, 1.0]
    first, second = (draw(sizes, weights, seed=0, epoch=epoch) for epoch in (0, 1))
    assert len(first) == len(second) == 2 + 5 + 1
    counts = [np.bincount(items % 7, minlength=7).tolist() for items in (first, second)]
    assert [a + b for a, b in zip(*counts, strict=True)] == [1, 1, 1, 1, 5, 5, 2]
    assert [sum(c[:4]) for c in counts] == [2, 2]
    assert sorted(counts[0][4:6]) == [2, 3]
    assert draw(sizes, weights, seed=0, epoch=1).tolist() == second.tolist()
    assert draw([3], [1.0], seed=0, epoch=5).tolist() == [0, 1, 2]


def test_repeats_are_planned_as_items_of_their_own() -> None:
    """Number 3 + 5 is the second item 3 of five: it has the length of item 3."""
    lengths = [10, 20, 30, 40, 50]
    drawn = draw([5], [2.0], seed=0, epoch=0)
    plan = plan_epoch(lengths, 100, seed=0, epoch=0, pool=10, drawn=drawn)
    assert sorted(i for batch in batches(plan) for i in batch) == list(range(10))
    assert [sorted(lengths[i % 5] for i in batch) for batch in batches(plan)].count([50, 50]) == 1
    parts = [partition_batch(range(10), lengths, rank=rank, world=2) for rank in (0, 1)]
    assert [sum(lengths[i % 5] for i in mine[0]) for mine in parts] == [150, 150]


def test_seeds_are_stable_and_distinct() -> None:
    assert derive_seed(0, "plan", 1) == derive_seed(0, "plan", 1)
    assert len({derive_seed(0, "plan", epoch) for epoch in range(1000)}) == 1000
    assert derive_seed("a", 1) < 2**63
