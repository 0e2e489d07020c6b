"""Stopping when a step ends: what training makes of the signals that end all programs.

Elsewhere SIGTERM and SIGUSR1 end a program at once with `Stopped` (exit code 75), Ctrl-C with
KeyboardInterrupt (130); see `mmembed.commands.cli.run_program`. The second signal ends the
process, whatever it is doing.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """A block in which the first signal is a request, seen when the block looks at it.

    A request that the block did not end for is made again when the block ends: no signal is lost.

    Attributes:
        requested: whether this process was asked to stop.
    """

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self._number is not None

    def __enter__(self) -> StopRequest:
        self._before = _handle(dict.fromkeys(SIGNALS, self._ask))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _handle(self._before)
        number, self._number = self._number, None
        if kind is None and number is not None:
            signal.raise_signal(number)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """A part of the block that signals end as they would outside."""
        self.__exit__(None)
        try:
            yield
        finally:
            self.__enter__()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        _handle(dict.fromkeys(SIGNALS, signal.SIG_DFL))


def _handle(handlers: dict[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Install handlers; returns those that were there."""
    return {number: signal.signal(number, handler) for number, handler in handlers.items()}
