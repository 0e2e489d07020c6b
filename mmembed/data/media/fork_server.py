"""The process from which decoding processes are forked: it imports once what all of them need."""

from __future__ import annotations

import multiprocessing
from multiprocessing import forkserver
from typing import Final

POOL: Final = "mmembed.data.media.pool"


def start_fork_server() -> None:
    """Start it now, so that it imports while the program does; else it starts with the first clip.

    It also imports what resamples sound, a second that the first clip would wait for.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([POOL, "scipy.signal"])
    forkserver.ensure_running()
