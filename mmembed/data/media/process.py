"""A decoding process: started within milliseconds, limited, and ended with the one it serves."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Final

import cv2

from mmembed.data.media.load import mapped_bytes

_STARTING: Final = threading.Lock()


def start_process(
    serve: Callable[[Connection, int], None], memory: int
) -> tuple[Connection, BaseProcess]:
    """Start a process that runs `serve` with its end of a connection and `memory`.

    Returns:
        Our end of the connection, and the process.
    """
    context = multiprocessing.get_context("forkserver")
    # Imported once in the server, so that a new process costs milliseconds.
    context.set_forkserver_preload([serve.__module__])
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, memory), daemon=True)
    with _nothing_to_import():
        process.start()
    theirs.close()
    return ours, process


@contextmanager
def _nothing_to_import() -> Iterator[None]:
    """A new process imports the program it was started by: one without `if __name__ ==
    "__main__"` would start again in it. Ours need nothing of the program, so they see an empty one.
    """
    with _STARTING:
        program = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = program


def limit_child(memory: int) -> None:
    """Make this process one of one thread and so many bytes that ends with the main process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # for the main process, whose end ends this one
    cv2.setNumThreads(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_follow_parent, daemon=True).start()
    limit = mapped_bytes() + memory
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
