"""Streams of features on their way to a file: made finite, counted, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.checks import Check, compare, none_of
from mmembed.data.corpora.sentiment.corpus import Segment
from mmembed.data.feature_files import Features, write_features

PER_FILE: Final = 2048  # segments; a file is in memory three times while it is written


class Finite:
    """Replaces what is not finite by 0, as MMSA does with the -inf of CMU-MOSEI, and counts it."""

    def __init__(self) -> None:
        self._values: Counter[tuple[str, str]] = Counter()
        self._where: dict[str, list[str]] = {}

    def __call__(self, stream: str, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
        """A float32 copy without NaN and infinities; `name` is whose it is."""
        with np.errstate(over="ignore"):
            copy = np.array(values, np.float32)
        if bad := int((~np.isfinite(copy)).sum()):
            self._values[stream, "-inf"] += int(np.isneginf(copy).sum())
            self._values[stream, "+inf"] += int(np.isposinf(copy).sum())
            self._values[stream, "NaN"] += bad - int(np.isinf(copy).sum())
            self._where.setdefault(stream, []).append(name)
            np.nan_to_num(copy, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
        return copy

    def checks(self, streams: Sequence[str]) -> Iterator[Check]:
        """One check a stream."""
        for stream in streams:
            kinds = [
                f"{count} {kind}"
                for kind in ("-inf", "+inf", "NaN")
                if (count := self._values[stream, kind])
            ]
            note = f"with {', '.join(kinds)}, replaced by 0"
            yield none_of(f"{stream} not finite", self._where.get(stream, ()), note)


def widths(found: Mapping[str, int], published: Mapping[str, int]) -> list[Check]:
    """The width of each stream against the one published."""
    return [compare(f"width of {name}", found[name], published.get(name)) for name in found]


def write_splits(
    out: Path, segments: Sequence[Segment], features: Callable[[int], Features]
) -> list[Segment]:
    """Write features as out/features/SPLIT.safetensors, and SPLIT-1 and so on for large splits.

    Args:
        out: folder.
        segments: any, of any split.
        features: of the segment of that number; called once, in the order of writing, so that
            no more than one file's features are in memory.

    Returns:
        the segments that have features, split by split, with their media.
    """
    written: list[Segment] = []
    for split in dict.fromkeys(segment.split for segment in segments):
        numbers = [n for n, segment in enumerate(segments) if segment.split == split]
        for part, first in enumerate(range(0, len(numbers), PER_FILE)):
            name = f"{split or 'unassigned'}{f'-{part}' if part else ''}.safetensors"
            filled = [
                (segments[n], rows)
                for n in numbers[first : first + PER_FILE]
                if any(map(len, (rows := features(n)).values()))
            ]
            if filled:
                write_features(out / "features" / name, [rows for _, rows in filled])
            written += [
                replace(segment, media=f"features/{name}#{row}")
                for row, (segment, _) in enumerate(filled)
            ]
    return written
