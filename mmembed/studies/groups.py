"""Which items belong together: those of a speaker, else of a dialogue, else each by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mmembed.data.manifest.utterance import Utterance


@dataclass(frozen=True)
class Groups:
    """Groups of items that resemble each other, to be drawn together by a bootstrap.

    Attributes:
        names: the group of each of N items. Where there are groups of several kinds, each name
            begins with its kind, so that a speaker and a dialogue of one name stay two groups.
        kind: what the groups are: "speaker", "dialogue", "clip", or those that occur, in this
            order: "speaker or dialogue".
    """

    names: tuple[str, ...]
    kind: str


def group_items(rows: Sequence[Utterance], item: str = "clip") -> Groups:
    """Group items by speaker, where that is not known by dialogue, else each by itself.

    Args:
        rows: N, of different keys.
        item: what a single item is called, such as "text".
    """
    found: list[tuple[str, str]] = []
    for row in rows:
        known = {"speaker": row.speaker, "dialogue": row.dialogue, item: row.key}
        found.append(next((kind, n) for kind, n in known.items() if n and n.strip()))
    kinds = [kind for kind in ("speaker", "dialogue", item) if any(kind == one for one, _ in found)]
    return Groups(
        tuple(f"{kind} {name}" if len(kinds) > 1 else name for kind, name in found),
        " or ".join(kinds) or item,
    )


@dataclass(frozen=True)
class ManifestItems:
    """Items that are rows of a manifest; every attribute has an entry for each of them.

    Attributes:
        rows: N of them.
    """

    rows: tuple[Utterance, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """N keys."""
        return tuple(row.key for row in self.rows)

    @property
    def groups(self) -> Groups:
        """Which of the N belong together."""
        return group_items(self.rows)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Self:
        """Some of them, in this order."""
        index = np.asarray(rows, np.int64)
        taken = {field.name: _take(getattr(self, field.name), index) for field in fields(self)}
        return replace(self, **taken)

    def where(self, kept: ArrayLike) -> Self:
        """Those for which (N,) is true."""
        return self.take(np.flatnonzero(np.asarray(kept)))


def _take(values: Any, index: NDArray[np.int64]) -> Any:
    """Entries of a tensor, an array or a sequence; of a mapping, of each of its values."""
    if isinstance(values, Mapping):
        return {name: _take(each, index) for name, each in values.items()}
    if isinstance(values, Tensor | np.ndarray):
        return values[index]
    return tuple(values[row] for row in index.tolist())
