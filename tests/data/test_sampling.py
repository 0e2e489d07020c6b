"""Plans are complete, repeatable, and shared fairly."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.data.sampling import derive_seed, plan_epoch, share

LENGTHS = st.lists(st.integers(1, 400), min_size=1, max_size=200)


@given(lengths=LENGTHS, budget=st.integers(1, 3000), seed=st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_every_item_once_an_epoch(lengths: list[int], budget: int, seed: int) -> None:
    plan = plan_epoch(lengths, budget, seed=seed, epoch=3)
    assert sorted(i for batch in plan for i in batch) == list(range(len(lengths)))
    assert plan == plan_epoch(lengths, budget, seed=seed, epoch=3)


@given(lengths=LENGTHS, world=st.integers(1, 4), splits=st.integers(1, 3))
@settings(max_examples=100, deadline=None)
def test_shares_are_a_partition(lengths: list[int], world: int, splits: int) -> None:
    batch = list(range(len(lengths)))
    hands = [share(batch, lengths, rank=r, world=world, splits=splits) for r in range(world)]
    assert sorted(i for mine in hands for cut in mine for i in cut) == batch
    if len(batch) >= world:
        assert all(mine and all(mine) for mine in hands)


def test_batches_reach_the_budget_and_epochs_differ() -> None:
    lengths = [50] * 400
    first = plan_epoch(lengths, 1000, seed=0, epoch=0)
    assert [len(batch) for batch in first] == [20] * 20
    assert first != plan_epoch(lengths, 1000, seed=0, epoch=1)
    assert first != plan_epoch(lengths, 1000, seed=1, epoch=0)


def test_two_processes_get_like_amounts() -> None:
    lengths = [400, 300, 200, 100, 90, 80, 70, 60]
    frames = [
        sum(lengths[i] for cut in share(range(8), lengths, rank=rank, world=2) for i in cut)
        for rank in (0, 1)
    ]
    assert frames == [400 + 100 + 90 + 60, 300 + 200 + 80 + 70]


def test_seeds_are_stable_and_distinct() -> None:
    assert derive_seed(0, "plan", 1) == derive_seed(0, "plan", 1)
    assert len({derive_seed(0, "plan", epoch) for epoch in range(1000)}) == 1000
    assert derive_seed("a", 1) < 2**63
