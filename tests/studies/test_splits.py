"""What is held out: whole groups, in an order that is known."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.errors import UsageError
from mmembed.studies.splits import deal, group_folds, hold_out

SPEAKERS = np.repeat([f"s{n}" for n in range(8)], 12)


def test_folds_split_speakers() -> None:
    folds = group_folds(SPEAKERS, 4)
    assert np.array_equal(sum(fold.astype(int) for fold in folds), np.ones(96))
    for fold in folds:
        assert not set(SPEAKERS[fold]) & set(SPEAKERS[~fold])
    assert set(SPEAKERS[folds[0]]) == {"s0", "s4"}
    with pytest.raises(UsageError, match="9 folds need as many speakers, found 8"):
        group_folds(SPEAKERS, 9)


def test_about_a_fraction_is_held_out_and_one_group_at_least() -> None:
    names = [*"abcdefghijklmnop"]
    assert hold_out(names, 0.1) == ["a", "b"]
    assert hold_out(names[:14], 0.1) == ["a"]
    assert hold_out(names[:3], 0.1) == ["a"]
    assert hold_out(names[:6], 0.3) == ["a", "b"]


def test_groups_are_dealt_out_in_turn() -> None:
    assert deal([*"abcde"], 2) == [["a", "c", "e"], ["b", "d"]]
