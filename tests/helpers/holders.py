"""Other processes that have done something and keep it: a lock, a half-written file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def another(action: str, folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has done this and keeps it until it reads a line or is ended."""
    program = f"""
import pathlib, sys
from contextlib import ExitStack
from mmembed.io.atomic import atomic_file
from mmembed.io.locks import file_lock, finishing, lock_folder
folder = pathlib.Path(sys.argv[1])
with ExitStack() as stack:
    {action}
    print("ready", flush=True)
    sys.stdin.readline()
"""
    command = [sys.executable, "-c", program, str(folder), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            wait_for(process.stdout, b"ready\n")
            yield process
        finally:
            process.kill()


def wait_for(pipe: IO[bytes] | None, line: bytes) -> None:
    assert pipe is not None
    while (said := pipe.readline()) != line:
        assert said
