"""Which items are held out: whole groups (speakers, dialogues, videos), never a part of one.

scikit-learn's `GroupKFold` balances folds by size; here groups go to folds by their names or in a
given order alone, so that a corpus with one clip more keeps the folds that published figures have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import count_groups, plural

SPLITS: Final = ("train", "dev", "test")


def hold_out(groups: Sequence[str], fraction: float) -> Sequence[str]:
    """The first of the groups, about this fraction of them and one at least: those for dev."""
    return groups[: max(1, round(fraction * len(groups)))]


def deal(groups: Sequence[str], parts: int) -> list[Sequence[str]]:
    """The groups dealt out in turn: part n has every parts-th group, from the n-th on."""
    return [groups[part::parts] for part in range(parts)]


def group_folds(
    groups: NDArray[np.str_], folds: int, grouping: str = "speaker"
) -> list[NDArray[np.bool_]]:
    """(N,) masks of the held-out items: groups in alphabetical order, dealt out in turn.

    Args:
        groups: (N,) of the items.
        folds: how many.
        grouping: what the groups are, for the message.

    Raises:
        UsageError: fewer groups than folds.
    """
    names = sorted(set(groups.tolist()))
    if len(names) < folds:
        found = count_groups(len(names), grouping)
        raise UsageError(f"{folds} folds need as many {plural(grouping)}, found {found}")
    return [np.isin(groups, some) for some in deal(names, folds)]
