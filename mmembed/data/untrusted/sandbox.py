"""Run a reader of untrusted files in a sandbox: a process of its own, with limits, that may crash.

The process gets a limit on its memory, on the size of what it writes and on its time, and leaves no
core behind. What it read comes back as plain values (`mmembed.data.untrusted.serialize`), so that
even a process that was taken over can only lie about the file, not run anything here.
"""

from __future__ import annotations

import errno
import importlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from mmembed.data.untrusted.serialize import dump, load
from mmembed.errors import DataError, UsageError

GIB: Final = 2**30
START: Final = 10  # seconds that starting Python may take

_PROGRAM: Final = """
import json, sys
from mmembed.data.untrusted.sandbox import serve
serve(int(sys.argv[1]), *json.loads(sys.argv[2]))
"""


class UnsafeFileError(Exception):
    """Raised within the process: the file is not read, and why.

    Attributes:
        reason: a short stable code, such as "unsafe", "damaged" or "too_large".
    """

    def __init__(self, message: str, reason: str = "unsafe") -> None:
        super().__init__(message)
        self.reason = reason


def limits_of(path: Path) -> tuple[int, int]:
    """Bytes of memory and seconds of time for reading a file.

    1 GiB and 4 times the file, so that a small file cannot be a bomb: arrays need the size of the
    file once or twice, lists of Python's numbers four times. A minute, and a second for each 5 MB.
    The environment variables MMEMBED_READER_GIB and MMEMBED_READER_SECONDS set other limits,
    whatever the file.
    """
    size = path.stat().st_size
    memory, seconds = _setting("GIB", GIB), _setting("SECONDS", 1)
    return memory or GIB + 4 * size, seconds or 60 + size // 5_000_000


def _setting(name: str, unit: int) -> int | None:
    text = os.environ.get(f"MMEMBED_READER_{name}", "")
    try:
        return math.ceil(float(text) * unit) if text else None
    except (ValueError, OverflowError):
        raise UsageError(f"MMEMBED_READER_{name} is {text!r}; a number is allowed") from None


def run_sandboxed(function: Callable[[str], Any], path: Path) -> Any:
    """What `function(path)` returns in a process with the limits of `limits_of`.

    The memory is that of its address space, with some 0.2 GiB for Python itself, and the most bytes
    that come back. What comes back lies in an unlinked file in the folder for temporary files, so
    that memory is not needed twice. The time is that of the processor, and that by the clock until
    all is here.

    Args:
        function: of a module's top level; returns plain values and raises `UnsafeFileError`.
        path: the file to read.

    Raises:
        DataError: with the reason of `UnsafeFileError`, or "missing", "damaged", "too_large" (for
            its memory), "too_slow" or "crashed".
    """
    if not path.is_file():
        raise DataError(str(path), "missing", "no such file")
    memory, seconds = limits_of(path)
    until = time.monotonic() + seconds + START
    task = [function.__module__, function.__qualname__, memory, seconds, str(path.absolute())]
    with tempfile.TemporaryFile() as answer:
        command = [sys.executable, "-P", "-c", _PROGRAM, str(answer.fileno())]
        try:
            ended = subprocess.run(
                [*command, json.dumps(task)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                    "OPENBLAS_NUM_THREADS": "1",  # each thread would take of the memory
                    "HDF5_PLUGIN_PRELOAD": "::",  # no filters from elsewhere
                },
                pass_fds=[answer.fileno()],
                start_new_session=True,
                timeout=seconds + START,
            )
            code = ended.returncode
        except subprocess.TimeoutExpired:
            code = -signal.SIGXCPU
        slow = f"not read within {seconds} s: allow more by MMEMBED_READER_SECONDS"
        if code == -signal.SIGXCPU:
            raise DataError(str(path), "too_slow", slow)
        if code:
            cause = signal.Signals(-code).name if code < 0 else f"code {code}"
            raise DataError(str(path), "crashed", f"its reader died ({cause}): damaged or hostile")
        try:
            reason, value = load(answer, until)
        except TimeoutError:
            raise DataError(str(path), "too_slow", slow) from None
        except ValueError as error:
            nonsense = f"its reader answered nonsense: {error}"
            raise DataError(str(path), "crashed", nonsense) from None
    if reason:
        # Names from the file may hold what a terminal would obey.
        shown = "".join(c if c.isprintable() else "?" for c in " ".join(str(value).split()))
        raise DataError(str(path), str(reason), shown[:500])
    return value


def serve(answer: int, module: str, name: str, memory: int, seconds: int, path: str) -> None:
    """The life of the process: limits, the function, its answer to the open file `answer`."""

    def work() -> Any:
        function = getattr(importlib.import_module(module), name)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        return function(path)

    with open(answer, "wb", closefd=False) as file:
        respond(work, file, memory)


def respond(work: Callable[[], Any], file: BinaryIO, memory: int) -> None:
    """Write ["", what `work` returns], or [reason, message] if it fails, as a plain value."""
    try:
        dump(("", work()), file)
        return
    except UnsafeFileError as error:
        failure = (error.reason, str(error))
    except (MemoryError, OverflowError):
        failure = _too_large(memory)
    except OSError as error:
        reason = "unreadable" if error.errno else "damaged"  # libraries give none
        failure = _too_large(memory) if error.errno == errno.EFBIG else (reason, str(error))
    except RecursionError:
        failure = ("damaged", "values are nested too deep")
    except Exception as error:
        failure = ("damaged", f"{type(error).__name__}: {error}")
    file.seek(0)
    file.truncate()
    dump(failure, file)


def _too_large(memory: int) -> tuple[str, str]:
    return (
        "too_large",
        f"reading it takes more than {memory / GIB:.2f} GiB: allow more by MMEMBED_READER_GIB",
    )
