"""Decoding in processes of its own: a clip that crashes, hangs or swells costs that clip alone.

Damaged media can take a decoder down or keep it busy for ever. So the files are opened in child
processes with limits on time and memory; one that dies or overstays is replaced. What comes back
is JSON and raw arrays, nothing that could run. The pools of the standard library do not serve here:
a worker that dies breaks a `ProcessPoolExecutor`, neither it nor `multiprocessing.Pool` ends one
that hangs, and both send pickles.
"""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
import weakref
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmembed.config import TIMEOUT, Seconds
from mmembed.data.example import Example, ExampleInfo
from mmembed.data.manifest.utterance import Utterance, without_secrets
from mmembed.data.media.load import MediaSource, ProbeResult, Source, probe, replies
from mmembed.data.media.open import BLOCK
from mmembed.data.media.process import limit_child, start_process
from mmembed.data.media.temporary_arrays import TemporaryArray
from mmembed.errors import DataError, MmembedError, UsageError
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.video import VIDEO_RATE, CropForm

BYTES_A_SECOND: Final = 10_000  # of its file, for which a long clip may take a second more
DECODED_A_SECOND: Final = 20.0  # seconds of it, likewise
MEMORY: Final = 3 << 30  # bytes that one clip may take
START: Final[Seconds] = 120.0  # for a process to import what it needs on a busy machine
LOOK_EVERY: Final[Seconds] = 0.05  # for answers that another thread has read
AHEAD: Final = 4  # clips decoded ahead of the one that is waited for, in each process
MOST_HELD: Final = 1 << 30  # bytes of features of these, in memory or on disk
LARGEST_REPLY: Final = 2 << 30  # bytes
ROW: Final = ("key", "media", "start", "end", "transcript")  # what a child has to know of a row

Array: TypeAlias = NDArray[Any]
Outcome: TypeAlias = Example | ProbeResult | DataError


class Decoder:
    """Child processes that decode. They are started when they are first needed and end with the
    object, or earlier when it is closed as a context manager is; calls may overlap.

    Args:
        workers: how many at most, at least 1.
        seconds: the most that one clip may take. A long one may take that for each of its parts,
            in all it may take a second more for each 10 kB of its file and each 20 s of it that
            are decoded, so that hours of work take much to read or were asked for.
        memory: bytes that one clip may take.
    """

    def __init__(
        self, workers: int = 1, *, seconds: Seconds = TIMEOUT, memory: int = MEMORY
    ) -> None:
        if workers < 1:
            raise UsageError(f"workers {workers}: at least 1 is needed")
        self._size, self._seconds, self._memory = workers, seconds, memory
        self._children: list[_Child] = []
        self._lock = threading.RLock()
        weakref.finalize(self, _stop, self._children)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy has processes of its own."""
        return partial(Decoder, self._size, seconds=self._seconds, memory=self._memory), ()

    def close(self) -> None:
        """End the processes; another call starts new ones."""
        with self._lock:
            _stop(self._children)

    def load(self, sources: Iterable[Source]) -> Iterator[Example | DataError]:
        """Load all of them, a few ahead of what is asked for.

        Yields:
            For each source, in order, its example or why there is none: the reasons of `load_clip`,
            and "timeout", "memory", "crashed" and "unusable".
        """
        return self._run(_Pending(source) for source in sources)

    def probe(self, sources: Iterable[Source]) -> Iterator[ProbeResult | DataError]:
        """Like `load`, what is known of each without decoding it."""
        return self._run(_Pending(source, probing=True) for source in sources)

    def _run(self, waiting: Iterator[_Pending]) -> Iterator[Any]:
        begun = deque[_Pending]()
        try:
            while True:
                while len(begun) < AHEAD * self._size:
                    if (pending := next(waiting, None)) is None:
                        break
                    begun.append(pending)
                if not begun:
                    return
                self._assign(begun)
                if (outcome := begun[0].outcome) is None:
                    self._collect()
                else:
                    yield _named(outcome, begun.popleft().source)
        finally:
            self._give_up(begun)

    def _give_up(self, begun: Collection[_Pending]) -> None:
        """End the processes that decode what nobody waits for any more."""
        with self._lock:
            for child in [child for child in self._children if child.pending in begun]:
                self._remove(child)

    def _remove(self, child: _Child) -> None:
        child.stop()
        if child in self._children:
            self._children.remove(child)

    def _assign(self, begun: Sequence[_Pending]) -> None:
        """Give every idle process the next clip; what needs no decoding is loaded here in turn."""
        held = 0
        for pending in begun:
            if pending.outcome is not None or pending.begun:
                held += pending.held
            elif held > MOST_HELD:
                return
            elif pending.media is None:
                if pending is begun[0]:  # it takes time and memory here
                    pending.outcome = pending.load_here()
            elif not self._begin(pending):
                return

    def _begin(self, pending: _Pending) -> bool:
        """Give it to an idle process, or to a new one; False if all are at work."""
        with self._lock:
            idle = next((child for child in self._children if child.pending is None), None)
            if idle is None:
                if len(self._children) == self._size:
                    return False
                idle = _Child(self._memory)
                self._children.append(idle)
            idle.begin(pending, self._seconds)
            return True

    def _collect(self) -> None:
        """Wait until a process has answered, died or run out of time."""
        with self._lock:
            busy = [child for child in self._children if child.pending is not None]
        nearest = min((child.deadline for child in busy), default=0.0)
        # Another thread may read the answer that this one waits for, which then nothing tells it.
        lasts = min(LOOK_EVERY, max(0.0, nearest - time.monotonic()))
        with suppress(OSError, ValueError):  # one of them was ended by another thread
            wait([child.connection for child in busy], lasts)
        with self._lock:
            busy = [child for child in busy if child.alive and child.pending is not None]
            ready = wait([child.connection for child in busy], 0)
            for child in busy:
                self._look(child, child.connection in ready)

    def _look(self, child: _Child, ready: bool) -> None:
        """See what has become of a process's clip."""
        pending = child.pending
        assert pending is not None
        if ready:
            pending.outcome = child.answer()
            if pending.outcome is None:
                earned = pending.size / BYTES_A_SECOND + pending.lasts / DECODED_A_SECOND
                child.deadline = self._seconds + min(time.monotonic(), pending.begun + earned)
                return
        elif child.deadline <= time.monotonic():
            allowed = child.deadline - pending.begun
            message = f"took more than {allowed:.0f} s and was given up"
            pending.outcome = DataError(pending.name, "timeout", message)
            child.alive = False
        else:
            return
        child.pending = None
        if not child.alive:
            self._remove(child)


def _stop(children: list[_Child]) -> None:
    while children:
        children.pop().stop()


def _named(outcome: Outcome, source: Source) -> Outcome:
    """An error by the name that its source has for the user, without what is secret."""
    if not isinstance(outcome, DataError) or outcome.item == source.name or not source.name:
        return outcome
    message = str(outcome).replace(outcome.item, without_secrets(outcome.item))
    return DataError(source.name, outcome.reason, message)


@dataclass(eq=False)
class _Pending:
    """A source and, in the end, what became of it.

    Attributes:
        probing: whether it is not decoded.
        begun: when a process was given it; 0 = not yet.
        size: bytes of its medium, once they are known.
        steps: of each stream, on disk so far.
    """

    source: Source
    probing: bool = False
    begun: float = 0.0
    size: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    arrays: defaultdict[str, TemporaryArray] = field(
        default_factory=lambda: defaultdict(TemporaryArray)
    )
    outcome: Outcome | None = None

    @property
    def media(self) -> MediaSource | None:
        """The source where it is for a process."""
        source = self.source
        if isinstance(source, MediaSource) and source.utterance.media is not None:
            return source
        return None

    def load_here(self) -> Outcome:
        """What needs no process of its own."""
        source = self.source
        try:
            if not self.probing:
                return source.load()
            if isinstance(source, MediaSource):
                return probe(source)
            assert source.probe is not None
            return source.probe()
        except DataError as error:
            return error

    @property
    def lasts(self) -> Seconds:
        """How much of a long clip has been decoded."""
        return max(self.steps["audio"] / SAMPLE_RATE, self.steps["video"] / VIDEO_RATE)

    @property
    def held(self) -> int:
        """Bytes of its features."""
        if not isinstance(self.outcome, Example):
            return 0
        arrays = (self.outcome.audio, self.outcome.video, *self.outcome.features.values())
        return sum(array.nbytes for array in arrays if array is not None)

    @property
    def name(self) -> str:
        return self.media.path if self.media else self.source.name


class _Child:
    """One process; `alive` turns false when it has to be replaced."""

    def __init__(self, memory: int) -> None:
        self._owner = os.getpid()
        self.connection, self._process = start_process(_serve, memory)
        self.pending: _Pending | None = None
        self.deadline = math.inf
        self.alive = True
        with suppress(EOFError):
            if self.connection.poll(START) and self.connection.recv_bytes():
                return
        self.stop()
        raise MmembedError(f"a decoding process did not start within {START:.0f} s; try again")

    def begin(self, pending: _Pending, seconds: Seconds) -> None:
        source = pending.media
        assert source is not None
        request = {
            "row": {name: getattr(source.utterance, name) for name in ROW},
            "folder": str(source.folder),
            "streams": source.streams,
            "face_model": source.face_model and str(source.face_model),
            "longest": source.longest,
            "crops": asdict(source.crops),
            "probing": pending.probing,
            "here": os.getcwd(),
            # The server may have been started elsewhere and with other settings.
            "settings": {n: text for n, text in os.environ.items() if n.startswith("MMEMBED_")},
        }
        pending.begun, self.pending = time.monotonic(), pending
        self.deadline = pending.begun + seconds
        with suppress(OSError):  # it has died since; reading will show it
            self.connection.send_bytes(json.dumps(request).encode())

    def answer(self) -> Outcome | None:
        """What has become of the clip; None if this was a part of it, which is written to disk,
        unless there is more than the longest clip has.

        Raises:
            OSError: the disk is full.
        """
        pending = self.pending
        assert pending is not None and pending.media is not None
        source, self.deadline = pending.media, math.inf
        try:
            head = json.loads(self.connection.recv_bytes(LARGEST_REPLY))
            if "reason" in head:
                self.alive = not head["last"]
                return DataError(*(head[name] for name in ("item", "reason", "message")))
            arrays = {name: self._array(kind, shape) for name, kind, shape in head["arrays"]}
            if "probe" in head:
                streams, seconds = head["probe"]
                return ProbeResult(streams and tuple(streams), seconds, source.text)
            if "info" in head:
                info = ExampleInfo.from_json(head["info"])
                fields: dict[str, Any] = {"features": arrays} if source.has_features else arrays
                fields |= {name: array.finish() for name, array in pending.arrays.items()}
                return Example(source.utterance, text=source.text, info=info, **fields)
            pending.size = int(head["size"])
        except (EOFError, OSError, ValueError, KeyError, TypeError):
            self.alive = False
            self._process.join(1.0)
            code = self._process.exitcode
            how = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
            return DataError(pending.name, "crashed", f"its decoder died ({how})")
        for stream, values in arrays.items():
            pending.steps[stream] += len(values)
            if pending.lasts > source.longest + BLOCK:
                self.alive = False
                return DataError(pending.name, "too_long", "lasts longer than it may last")
            pending.arrays[stream].add(values)
        return None

    def _array(self, kind: str, shape: Sequence[int]) -> Array:
        data = self.connection.recv_bytes(LARGEST_REPLY)
        return np.frombuffer(data, kind).reshape(shape).copy()  # one that may be written to

    def stop(self) -> None:
        """End the process; what it was decoding is lost."""
        self.alive = False
        if self.pending is not None and self.pending.outcome is None:
            message = "its decoder was ended"
            self.pending.outcome = DataError(self.pending.name, "crashed", message)
        if self._owner == os.getpid():  # not in a fork of the process that started it
            self._process.kill()
            self._process.join()
        self.connection.close()


def _serve(connection: Connection, memory: int) -> None:
    """What a child does: answer requests until the other side is gone."""
    limit_child(memory)
    with suppress(EOFError, ConnectionError):  # the main process has ended
        connection.send_bytes(b"ready")
        while _answer(connection):
            pass


def _answer(connection: Connection) -> bool:
    """Answer one request; whether to go on."""
    request = json.loads(connection.recv_bytes())
    os.chdir(request["here"])
    os.environ.update(request["settings"])
    source = MediaSource(
        Utterance(**request["row"]),
        Path(request["folder"]),
        tuple(request["streams"]),
        request["face_model"] and Path(request["face_model"]),
        request["longest"],
        crops=CropForm(**request["crops"]),
    )
    for head, arrays in replies(source, request["probing"]):
        send(connection, head, arrays)
    return not head.get("last")


def send(connection: Connection, head: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """What a child answers: JSON, then the bytes of the arrays that it announces."""
    shapes = [[name, array.dtype.str, array.shape] for name, array in arrays.items()]
    connection.send_bytes(json.dumps({**head, "arrays": shapes}).encode())
    for array in arrays.values():
        connection.send_bytes(np.ascontiguousarray(array).data.cast("B"))
