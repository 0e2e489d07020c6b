"""Decoding in processes of its own: a clip that crashes, hangs or swells costs that clip alone.

Damaged media can take a decoder down or keep it busy for ever. So the files are opened in child
processes with limits on time and memory; one that dies or overstays is replaced. What comes back
is JSON and raw arrays, nothing that could run.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Final, Self

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.batch import STREAMS
from mmembed.config import Seconds
from mmembed.data.example import Example
from mmembed.data.manifest.jsonl import from_row, to_row
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import BLOCK, LONGEST
from mmembed.data.media.header import look_at
from mmembed.data.media.load import load_example, load_parts
from mmembed.data.media.streaming import FeatureBlock, Spools, gather
from mmembed.data.shards.records import from_record, to_record
from mmembed.errors import DataError, MmembedError, UsageError
from mmembed.features.audio import FEATURE_RATE
from mmembed.features.video import VIDEO_RATE

PATIENCE: Final[Seconds] = 120.0  # to decode one clip; most take a tenth of a second
BYTES_A_SECOND: Final = 10_000  # of its file, for which a long clip may take a second more
DECODED_A_SECOND: Final = 20.0  # seconds of it, likewise
MEMORY: Final = 3 << 30  # bytes that one clip may take
ALMOST: Final = 16 << 20  # bytes; what fails with so few left fails for want of memory
START: Final[Seconds] = 120.0  # for a process to import what it needs on a busy machine
AHEAD: Final = 4  # clips decoded ahead of the one that is waited for, in each process
LARGEST_REPLY: Final = 2 << 30  # bytes
_STARTING: Final = threading.Lock()


@dataclass(frozen=True)
class Task:
    """One utterance to load.

    Attributes:
        utterance: a manifest row.
        folder: where its relative media path starts.
        streams: those wanted.
        face_model: see `mmembed.features.video.face_crops`.
        longest: seconds that it may last; beyond `mmembed.data.media.decode.LONGEST` its features
            are mapped from disk (`mmembed.data.media.temporary_arrays`).
        header: do not decode it, only look: see `mmembed.data.media.header.look_at`.
    """

    utterance: Utterance
    folder: Path
    streams: tuple[str, ...] = STREAMS
    face_model: Path | None = None
    longest: Seconds = LONGEST
    header: bool = False

    def load(self) -> Example:
        """Load it in this process; raises DataError."""
        return gather(self.parts())

    def parts(self) -> Generator[FeatureBlock, None, Example]:
        """The example; of a long one the features come before it, part by part."""
        what = (self.utterance, self.folder, self.streams)
        if self.header:
            return look_at(*what, longest=self.longest)
        try:
            return load_example(*what, self.face_model)
        except DataError as error:
            if error.reason != "too_long" or self.longest <= LONGEST:
                raise
        return (yield from load_parts(*what, self.face_model, longest=self.longest))


class Decoder:
    """Child processes that decode; use as a context manager.

    Args:
        workers: how many, at least 1.
        seconds: the most that one clip may take. A long one may take that for each of its parts,
            in all it may take a second more for each 10 kB of its file and each 20 s of it that
            are decoded, so that hours of work take much to read or were asked for.
        memory: bytes that one clip may take.
    """

    def __init__(
        self, workers: int = 1, *, seconds: Seconds = PATIENCE, memory: int = MEMORY
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers {workers}: at least 1 is needed")
        self._size, self._seconds, self._memory = workers, seconds, memory
        self._children: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self._children:
            child.stop()
        self._children.clear()

    def load(self, tasks: Iterable[Task]) -> Iterator[Example | DataError]:
        """Load all of them, a few ahead of what is asked for.

        Yields:
            For each task, in order, its example or why there is none: the reasons of `load_clip`,
            and "timeout", "memory", "crashed" and "unusable".
        """
        waiting, begun = iter(tasks), deque[_Place]()
        exhausted = False
        while True:
            while not exhausted and len(begun) < AHEAD * self._size:
                task = next(waiting, None)
                if task is None:
                    exhausted = True
                    break
                begun.append(_Place(task))
            if not begun:
                return
            self._assign(begun)
            if begun[0].outcome is not None:
                yield begun.popleft().outcome  # type: ignore[misc]
            else:
                self._collect()

    def _assign(self, begun: Iterable[_Place]) -> None:
        """Give every idle process the next clip; what needs no decoding is loaded here."""
        idle = [child for child in self._children if child.place is None]
        for place in begun:
            if place.outcome is not None or place.assigned:
                continue
            if place.task.utterance.media is None:
                place.outcome = _load(place.task)
                continue
            if not idle and len(self._children) < self._size:
                self._children.append(_Child(self._memory))
                idle = self._children[-1:]
            if not idle:
                return
            idle.pop().begin(place, self._seconds)

    def _collect(self) -> None:
        """Wait until a process has answered, died or run out of time."""
        busy = {child.connection: child for child in self._children if child.place is not None}
        nearest = min(child.deadline for child in busy.values())
        ready = wait(list(busy), max(0.0, nearest - time.monotonic()))
        now = time.monotonic()
        for connection, child in busy.items():
            place = child.place
            assert place is not None
            if connection in ready:
                place.outcome = child.answer()
                if place.outcome is None:
                    child.deadline = (
                        min(time.monotonic(), place.begun + place.earned) + self._seconds
                    )
                    continue
            elif child.deadline <= now:
                allowed = child.deadline - place.begun
                message = f"took more than {allowed:.0f} s and was given up"
                place.outcome, child.alive = DataError(place.name, "timeout", message), False
            else:
                continue
            child.place = None
            if not child.alive:
                child.stop()
                self._children.remove(child)


@dataclass
class _Place:
    """A task and, in the end, what became of it.

    Attributes:
        begun: when a process was given it.
        size: bytes of its medium, once they are known.
        steps: of each stream, on disk so far.
    """

    task: Task
    assigned: bool = False
    begun: float = 0.0
    size: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    spools: Spools = field(default_factory=Spools)
    outcome: Example | DataError | None = None

    @property
    def lasts(self) -> Seconds:
        """How much of a long clip has been decoded."""
        return max(self.steps["audio"] / FEATURE_RATE, self.steps["video"] / VIDEO_RATE)

    @property
    def earned(self) -> Seconds:
        """What a long clip may take beyond the time of any clip."""
        return self.size / BYTES_A_SECOND + self.lasts / DECODED_A_SECOND

    @property
    def name(self) -> str:
        return str(self.task.folder / (self.task.utterance.media or self.task.utterance.key))


class _Child:
    """One process; `alive` turns false when it has to be replaced."""

    def __init__(self, memory: int) -> None:
        context = multiprocessing.get_context("forkserver")
        # Imported once in the server, so that a new process costs milliseconds.
        context.set_forkserver_preload([__name__])
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, memory), daemon=True)
        with _nothing_to_import():
            self._process.start()
        theirs.close()
        self.place: _Place | None = None
        self.deadline = math.inf
        self.alive = True
        if not self.connection.poll(START) or not self._greeted():
            self.stop()
            raise MmembedError(f"a decoding process did not start within {START:.0f} s; try again")

    def _greeted(self) -> bool:
        try:
            return bool(self.connection.recv_bytes())
        except EOFError:
            return False

    def begin(self, place: _Place, seconds: Seconds) -> None:
        task = place.task
        # The server may have been started elsewhere and with other settings.
        settings = {name: text for name, text in os.environ.items() if name.startswith("MMEMBED_")}
        where = {"folder": str(task.folder), "here": os.getcwd(), "settings": settings}
        faces = task.face_model and str(task.face_model)
        how = {"streams": task.streams, "face_model": faces}
        which = {"longest": task.longest, "header": task.header}
        request = {"row": to_row(task.utterance), **where, **how, **which}
        place.assigned, place.begun, self.place = True, time.monotonic(), place
        self.deadline = place.begun + seconds
        with suppress(OSError):  # it has died since; reading will tell
            self.connection.send_bytes(json.dumps(request).encode())

    def answer(self) -> Example | DataError | None:
        """What has become of the clip; None if this was a part of it."""
        assert self.place is not None
        self.deadline = math.inf
        try:
            head = json.loads(self.connection.recv_bytes(LARGEST_REPLY))
            if "reason" in head:
                self.alive = not head["last"]
                return DataError(*(head[name] for name in ("item", "reason", "message")))
            members = {name: self._array(kind, shape) for name, kind, shape in head["arrays"]}
            if "json" in head:
                key = self.place.task.utterance.key
                return self.place.spools.fill(from_record(key, {**members, "json": head["json"]}))
            size = int(head["size"])
        except (EOFError, OSError, ValueError, KeyError):
            self.alive = False
            self._process.join(1.0)
            code = self._process.exitcode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
            return DataError(self.place.name, "crashed", f"its decoder died ({how})")
        return self._keep(self.place, members, size)

    def _keep(
        self, place: _Place, members: Mapping[str, NDArray[Any]], size: int
    ) -> DataError | None:
        """Write a part to disk, unless there is more of it than the longest clip has.

        Raises:
            OSError: the disk is full.
        """
        place.size = size
        for stream, values in members.items():
            place.steps[stream] += len(values)
            if place.lasts > place.task.longest + BLOCK:
                self.alive = False
                return DataError(place.name, "too_long", "lasts longer than it may last")
            place.spools.add(FeatureBlock(stream, values))
        return None

    def _array(self, kind: str, shape: Sequence[int]) -> NDArray[Any]:
        data = self.connection.recv_bytes(LARGEST_REPLY)
        return np.frombuffer(data, kind).reshape(shape).copy()  # one that may be written to

    def stop(self) -> None:
        self.alive = False
        self._process.kill()
        self._process.join()
        self.connection.close()


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


def _load(task: Task) -> Example | DataError:
    try:
        return task.load()
    except DataError as error:
        return error


def _serve(connection: Connection, memory: int) -> None:
    """What a child does: answer requests until the other side is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # for the main process, whose end ends this one
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_follow_parent, daemon=True).start()
    limit = _held() + memory
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(EOFError, ConnectionError):  # nobody asks any more
        connection.send_bytes(b"ready")
        while _answer(connection):
            pass


def _answer(connection: Connection) -> bool:
    """Answer one request; whether to go on."""
    request = json.loads(connection.recv_bytes())
    os.chdir(request["here"])
    os.environ.update(request["settings"])
    face_model = request["face_model"] and Path(request["face_model"])
    where, streams = Path(request["folder"]), tuple(request["streams"])
    how = {"longest": request["longest"], "header": request["header"]}
    task = Task(from_row(request["row"]), where, streams, face_model, **how)
    for head, arrays in _replies(task):
        shapes = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
        connection.send_bytes(json.dumps({**head, "arrays": shapes}).encode())
        for array in arrays.values():
            connection.send_bytes(np.ascontiguousarray(array).data.cast("B"))
    return not head.get("last")


def _held() -> int:
    """Bytes of data that this process has mapped; libraries alone take hundreds of megabytes."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmData:")[1].split()[0]) << 10


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _replies(task: Task) -> Iterator[tuple[dict[str, Any], dict[str, NDArray[Any]]]]:
    """Head and arrays of each message: parts of a long clip, then the clip or why there is none."""
    item, last = str(task.folder / (task.utterance.media or task.utterance.key)), False
    no_memory = "memory", f"{item}: needs more memory than one clip may take"
    parts = task.parts()
    try:
        while True:
            part = next(parts)
            yield {"size": part.size}, {part.stream: part.values}
    except StopIteration as end:
        _, members, _ = to_record(end.value)
        arrays = {name: array for name, array in members.items() if isinstance(array, np.ndarray)}
        yield {"json": members["json"]}, arrays
        return
    except DataError as error:
        item, reason, message = error.item, error.reason, str(error)
        if reason == "damaged" and _held() + ALMOST > resource.getrlimit(resource.RLIMIT_DATA)[0]:
            reason, message, last = *no_memory, True
    except MmembedError as error:  # a damaged file of features, a URL that is not allowed
        reason, message = "unusable", str(error)
    except MemoryError:
        # What it holds by now may never come back: a new process starts empty.
        reason, message, last = *no_memory, True
    except Exception as error:  # of a library that met what its authors had not thought of
        reason, message = "damaged", f"{item}: cannot be decoded ({type(error).__name__}: {error})"
    message = " ".join(message.removeprefix(f"{item}: ").split())
    yield {"item": item, "reason": reason, "message": message, "last": last}, {}
