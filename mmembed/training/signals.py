"""Stopping when asked to: the first signal ends training at the next step, a second one at once."""

from __future__ import annotations

import signal
from types import FrameType

import torch

from mmembed.training.distributed import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Whether any process was asked to stop."""

    def __init__(self) -> None:
        self._asked = False
        for number in SIGNALS:
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        for other in SIGNALS:
            signal.signal(other, signal.SIG_DFL)

    def agreed(self, world: World) -> bool:
        """True on every process as soon as one of them was asked."""
        return bool(world.total(torch.tensor([float(self._asked)]))[0] > 0)
