"""The names of the streams and of their subsets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Final

STREAMS: Final = ("audio", "video", "text")


def stream_subsets(streams: Sequence[str] = STREAMS) -> list[tuple[str, ...]]:
    """All non-empty subsets of `streams`, smallest first, each in the order of `streams`."""
    return [
        subset
        for size in range(1, len(streams) + 1)
        for subset in itertools.combinations(streams, size)
    ]


def subset_name(streams: Iterable[str]) -> str:
    """`("video", "audio")` -> `"audio+video"`: the name of a stream subset in files and tables."""
    chosen = set(streams)
    unknown = chosen - set(STREAMS)
    if unknown or not chosen:
        raise ValueError(f"streams {sorted(chosen)}: name one or more of {', '.join(STREAMS)}")
    return "+".join(stream for stream in STREAMS if stream in chosen)


def parse_subset(name: str) -> tuple[str, ...]:
    """`"audio+video"` -> `("audio", "video")`; the inverse of `subset_name`."""
    return tuple(subset_name(name.split("+")).split("+"))
