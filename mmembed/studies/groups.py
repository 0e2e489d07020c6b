"""Which items belong together: those of a speaker, else of a dialogue, else each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


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


def group_items(
    keys: Sequence[str],
    speakers: Sequence[str | None],
    dialogues: Sequence[str | None],
    item: str = "clip",
) -> Groups:
    """Group items by speaker, where that is not known by dialogue, else each by itself.

    Args:
        keys: N, all different.
        speakers: N; None or blank where it is not known.
        dialogues: N; likewise.
        item: what a single item is called, such as "text".
    """
    found: list[tuple[str, str]] = []
    for key, speaker, dialogue in zip(keys, speakers, dialogues, strict=True):
        if speaker and speaker.strip():
            found.append(("speaker", speaker))
        elif dialogue and dialogue.strip():
            found.append(("dialogue", dialogue))
        else:
            found.append((item, key))
    kinds = [kind for kind in ("speaker", "dialogue", item) if any(kind == one for one, _ in found)]
    return Groups(
        tuple(f"{kind} {name}" if len(kinds) > 1 else name for kind, name in found),
        " or ".join(kinds) or item,
    )
