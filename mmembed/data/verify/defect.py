"""What is found wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.locations import Location
from mmembed.errors import CorruptError, DataError

SHOWN: Final = 20  # defects of a location that are kept one by one; the others are counted

_PORTABLE: Final = re.compile(r"[A-Za-z0-9_%-]+")


@dataclass(frozen=True)
class Defect:
    """Something wrong with one item.

    Attributes:
        item: a path, or the key of a record.
        reason: a short stable code.
        message: what was found, and what to do where that is not obvious.
        exit_code: 5 = damaged, 4 = whole but invalid, 0 = a note, nothing to be fixed.
    """

    item: str
    reason: str
    message: str
    exit_code: int = DataError.exit_code


@dataclass
class VerifyResult:
    """What was found in one location.

    Attributes:
        location: what was verified.
        records: how many records or rows it holds.
        failures: items that were left out when it was made, each with a reason.
        parts: shards.
        size: bytes of its shards.
        unchecked: media that could not be looked at from here, such as URLs.
        defects: the first `SHOWN`.
        counts: (reason, exit code) -> how many, of all defects.
    """

    location: Location
    records: int = 0
    failures: int = 0
    parts: int = 0
    size: int = 0
    unchecked: int = 0
    defects: list[Defect] = field(default_factory=list)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, defects: Iterable[Defect]) -> None:
        for defect in defects:
            self.counts[defect.reason, defect.exit_code] += 1
            if len(self.defects) < SHOWN:
                self.defects.append(defect)

    @property
    def exit_code(self) -> int:
        """The worst of the defects: 5, 4 or 0."""
        return max((code for _, code in self.counts), default=0)

    @property
    def num_errors(self) -> int:
        """How many defects have to be fixed."""
        return sum(count for (_, code), count in self.counts.items() if code)


def corrupt(item: object, reason: str, message: str) -> Defect:
    """Damage."""
    return Defect(str(item), reason, message, CorruptError.exit_code)


def defect_of(error: DataError | CorruptError, item: str = "") -> Defect:
    """An error as a defect of an item; "" = of the item that it names."""
    if isinstance(error, CorruptError):
        return corrupt(item, "damaged", str(error))
    if item:
        return Defect(item, error.reason, str(error))
    return Defect(error.item, error.reason, str(error).removeprefix(f"{error.item}: "))


def check_key(key: str) -> Iterator[Defect]:
    """A defect if a key holds anything but ASCII letters, digits, - _ and %."""
    if not _PORTABLE.fullmatch(key):
        message = "key is not portable; letters, digits, - and _ are allowed, the rest as %XX"
        yield Defect(key, "key", message)


def check_finite(item: str, name: str, array: NDArray[Any]) -> Iterator[Defect]:
    """A defect if an array holds NaN or infinity."""
    if array.dtype.kind == "f" and (bad := array.size - int(np.isfinite(array).sum())):
        message = f"{name} holds {bad} of {array.size} values that are not finite"
        yield Defect(item, "not_finite", message)
