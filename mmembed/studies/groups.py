"""Which items belong together: those of a speaker, else of a dialogue, else each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """Items that are rows of a manifest.

    Attributes:
        rows: N of them.
    """

    rows: tuple[Utterance, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def keys(self) -> tuple[str, ...]:
        """N keys."""
        return tuple(row.key for row in self.rows)

    @property
    def groups(self) -> Groups:
        """Which of the N belong together."""
        return group_items(self.rows)
