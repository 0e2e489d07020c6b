"""Errors that a user can act on: one line, the item they name, an exit code.

Exit codes: 0 ok, 2 usage, 3 error budget exceeded, 4 data invalid, 5 corrupt or incompatible
checkpoint or shard, 74 I/O or disk full, 75 stopped by a signal (run again to continue),
130 Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class MmembedError(Exception):
    """An error whose message is one complete line: what, which file, what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(MmembedError):
    """The command cannot mean anything as given."""

    exit_code = 2


class BudgetError(MmembedError):
    """More items failed than the run allows."""

    exit_code = 3


class DataError(MmembedError):
    """One item cannot be used.

    Attributes:
        item: the path or key of the item.
        reason: a short stable code, such as "missing", "empty", "not_media", "no_streams".
        message: what is wrong, without the item.
    """

    exit_code = 4

    def __init__(self, item: str, reason: str, message: str) -> None:
        super().__init__(f"{item}: {message}")
        self.item = item
        self.reason = reason
        self.message = message

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str]]:
        """Errors cross the borders of processes."""
        return type(self), (self.item, self.reason, self.message)


class CorruptError(MmembedError):
    """A checkpoint, model folder or shard is damaged or belongs to something else."""

    exit_code = 5


class Stopped(MmembedError):
    """A signal stopped the run after its state was saved."""

    exit_code = 75


def printable(text: str) -> str:
    """Text from outside for a terminal: control characters are shown, not obeyed."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def meant(found: str, names: Iterable[str]) -> str:
    """The end of a message about a name that is none: "; did you mean demo?", or nothing."""
    import difflib  # for messages alone

    near = difflib.get_close_matches(found, list(names), 1)
    return f"; did you mean {near[0]}?" if near else ""
