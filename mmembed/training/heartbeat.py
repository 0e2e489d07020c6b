"""Signs of life: a process that is busy for an hour is waited for, one that is lost is not.

A collective cannot tell the two apart: it fails after its time-out, whatever the others are doing.
So processes that may be apart in time, because one of them writes, reads or scores alone, meet in
the store through which they found each other, and only then call a collective.
"""

from __future__ import annotations

import datetime
import threading
import time
from contextlib import suppress
from typing import Final

from torch.distributed import DistError
from torch.distributed.distributed_c10d import Store

from mmembed.errors import MmembedError

EVERY: Final = 2.0  # seconds between two signs of life


class Heartbeat:
    """One process among those that beat; ends with the process, or by `end`.

    Args:
        store: of all processes.
        rank: of this process.
        size: processes.
        timeout: since the last sign of life of a process, until it counts as lost.
    """

    def __init__(self, store: Store, rank: int, size: int, timeout: datetime.timedelta) -> None:
        self._store = store
        self._others = [other for other in range(size) if other != rank]
        self._timeout = timeout.total_seconds()
        self._meetings = 0
        self._ended = threading.Event()
        # A connection of its own: a call of the main thread may hold the other one.
        other: Store = store.clone()  # type: ignore[attr-defined]
        self._thread = threading.Thread(
            target=self._beat, args=(other, f"beats/{rank}"), daemon=True
        )
        self._thread.start()

    def meet(self) -> None:
        """Until all processes are here, however long one of them is busy; all have to call it.

        Raises:
            MmembedError: a process gave no sign of life for too long, or the store is gone.
        """
        self._meetings += 1
        meeting = f"meetings/{self._meetings}"
        beats, latest = dict.fromkeys(self._others, -1), dict.fromkeys(self._others, 0.0)
        pause = 0.001
        try:
            here = self._store.add(meeting, 1)
            while here <= len(self._others):
                for other in self._others:
                    count = self._store.add(f"beats/{other}", 0)
                    if count != beats[other]:
                        beats[other], latest[other] = count, time.monotonic()
                    elif time.monotonic() - latest[other] > self._timeout:
                        raise MmembedError(
                            f"process {other} has given no sign of life for {self._timeout:g} s: "
                            "look for a machine that hangs, then run the same again to continue"
                        )
                time.sleep(pause)  # signals are noticed here, as they are not in a collective
                pause = min(2 * pause, 0.1)
                here = self._store.add(meeting, 0)
        except DistError:
            raise MmembedError(
                "the process that the others meet at is gone: run the same again to continue"
            ) from None

    def end(self) -> None:
        """No more signs of life."""
        self._ended.set()
        self._thread.join(EVERY)  # no thread in the store when the process tears it down

    def _beat(self, store: Store, key: str) -> None:
        with suppress(DistError):  # the others have ended
            while not self._ended.wait(EVERY):
                store.add(key, 1)
