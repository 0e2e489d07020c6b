"""Streams of features on their way to a file: made finite, counted, measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmembed.data.corpora.sentiment.corpus import Segment
from mmembed.data.features import Features, write_features
from mmembed.data.integrity import Check, compare, none_of


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
    out: Path, segments: Sequence[Segment], features: Sequence[Features]
) -> list[Segment]:
    """Write out/features/SPLIT.safetensors; the segments that have features, with their media."""
    written: list[Segment] = []
    for split in dict.fromkeys(segment.split for segment in segments):
        name = f"features/{split or 'unassigned'}.safetensors"
        held = [
            (segment, rows)
            for segment, rows in zip(segments, features, strict=True)
            if segment.split == split and any(map(len, rows.values()))
        ]
        if held:
            write_features(out / name, [rows for _, rows in held])
        written += [replace(s, media=f"{name}#{row}") for row, (s, _) in enumerate(held)]
    return written
