"""What is found wrong."""

from __future__ import annotations

from dataclasses import dataclass

from mmembed.errors import CorruptError, DataError


@dataclass(frozen=True)
class Defect:
    """Something wrong with one item.

    Attributes:
        item: a path, or the key of a record.
        reason: a short stable code.
        message: what was found, and what to do where that is not plain.
        exit_code: 5 = damaged, 4 = whole but invalid, 0 = worth knowing, harms nobody.
    """

    item: str
    reason: str
    message: str
    exit_code: int = DataError.exit_code


def corrupt(item: object, reason: str, message: str) -> Defect:
    """Damage."""
    return Defect(str(item), reason, message, CorruptError.exit_code)
