"""Extraction on a Ray cluster: actors make shards by their numbers, and what is lost with one of
them another one makes.

Ray places the actors, and adds nodes where it may. What fails is told apart here: an error of ours
ends the run, since it would come again; the death of an actor or its node does not.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # of 40 s each, when no cluster is there

import ray
from ray.exceptions import RayError, RayTaskError

from mmembed.config import Seconds
from mmembed.embeddings.extraction import MakeShard
from mmembed.embeddings.plan import Plan
from mmembed.errors import MmembedError, UsageError
from mmembed.settings.extract import RUNNING, Extract

log = logging.getLogger(__name__)

MOST_TRIES: Final = 3  # of a shard whose actors die
CONNECT: Final[Seconds] = 10.0  # until a cluster answers
POLL: Final[Seconds] = 1.0  # between looks at the cluster
SEEN: Final[Seconds] = 60.0  # until a shared folder shows what another machine has written


def make_on_ray(
    settings: Extract, plan: Plan, missing: Sequence[int], on_progress: Callable[[int], None]
) -> None:
    """Make shards on the cluster that `settings.ray` names.

    Args:
        settings: of the user.
        plan: the folders of which are begun.
        missing: the numbers of the shards to make.
        on_progress: called with the number of clips in the shards that were made.

    Raises:
        MmembedError: the actors of one shard died again and again.
        UsageError: there is no such cluster, or its nodes do not see the same folders.
    """
    if not missing:
        return
    with _cluster(settings.ray):
        crew = _Crew.of(settings, missing)
        clips = 0
        while crew.waiting or crew.busy:
            crew.hire()
            for made in crew.wait():
                clips += len(plan.clips(made))
                on_progress(clips)
    until = time.monotonic() + SEEN
    while not plan.complete:
        if time.monotonic() > until:
            folders = " and ".join(map(str, plan.folders))
            raise UsageError(f"{folders}: lack what other nodes have made; all have to see --out")
        time.sleep(POLL)


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A connection to a running cluster; its end is the end of our actors."""
    address = os.environ.get("RAY_ADDRESS", RUNNING) if address == RUNNING else address
    ours = signal.getsignal(signal.SIGTERM)  # which Ray replaces
    try:
        if address is not None and ":" in address:  # Ray would try for long
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT).close()
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise UsageError(f"--ray {address}: {error}; `ray start --head` starts a cluster") from None
    finally:
        signal.signal(signal.SIGTERM, ours)
    try:
        yield
    finally:
        ray.shutdown()


class _Share(NamedTuple):
    """What each actor takes of a node.

    Attributes:
        cpus: of them.
        gpus: 1 where there are any in the cluster.
        room: for so many actors now.
    """

    cpus: int
    gpus: int
    room: int

    @classmethod
    def of(cls, workers: int | None) -> _Share:
        """One actor for each GPU, or else each node; of unequal ones the smallest share is that of
        all.
        """
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = int(any(node.get("GPU", 0) >= 1 for node in nodes))
        usable = [(n.get("CPU", 0), n.get("GPU", 0)) for n in nodes if n.get("GPU", 0) >= gpus]
        each = [int(cpu // max(1, gpu)) for cpu, gpu in usable if cpu >= 1]
        cpus = workers or max(1, min(each, default=1))
        room = sum(int(min(cpu // cpus, gpu) if gpus else cpu // cpus) for cpu, gpu in usable)
        found = f"ray: {_count(len(nodes), 'node')}, room for {_count(room, 'actor')}"
        taken = _count(cpus, "CPU") + " and 1 GPU" * gpus
        print(f"{found} of {taken}", file=sys.stderr, flush=True)
        return cls(cpus, gpus, max(1, room))


class _Crew:
    """Actors and what each of them does.

    Attributes:
        waiting: numbers of shards that nobody makes.
        busy: a result to come -> the actor, and the shard that it makes.
        starting: that an actor is ready, to come -> the actor.
    """

    def __init__(self, make: MakeShard, share: _Share, missing: Sequence[int]) -> None:
        self.waiting = deque(missing)
        self.busy: dict[Any, tuple[Any, int]] = {}
        self.starting: dict[Any, Any] = {}
        self._hire = ray.remote(_Maker).options(num_cpus=share.cpus, num_gpus=share.gpus)
        self._make, self._share = make, share
        self._died = Counter[str]()

    @classmethod
    def of(cls, settings: Extract, missing: Sequence[int]) -> _Crew:
        share = _Share.of(settings.workers)
        workers = settings.workers or max(1, share.cpus - share.gpus)
        return cls(MakeShard(replace(settings, ray=None, workers=workers)), share, missing)

    def hire(self) -> None:
        """As many actors wait for room as work: so Ray knows what more nodes would be good for."""
        wanted = min(len(self.waiting), max(self._share.room, len(self.busy)))
        while len(self.starting) < wanted:
            actor = self._hire.remote(self._make)
            self.starting[actor.open.remote()] = actor

    def wait(self) -> Iterator[int]:
        """Look what has come, and give work to who has none; the numbers of shards made."""
        for result in ray.wait([*self.starting, *self.busy], timeout=POLL)[0]:
            actor, number = self.busy.pop(result, (self.starting.pop(result, None), None))
            try:
                ray.get(result)
            except RayTaskError as error:
                raise error.cause from None
            except RayError as error:  # the actor or its node died, or memory ran out
                ray.kill(actor)
                self._lose(number, " ".join(str(error).split()))
                continue
            if number is None:
                self._died.pop("start", None)
            else:
                yield number
            if self.waiting:
                following = self.waiting.popleft()
                self.busy[actor.make.remote(following)] = actor, following
            else:
                ray.kill(actor)

    def _lose(self, number: int | None, why: str) -> None:
        name = "start" if number is None else f"shard {number}"
        if number is not None:
            self.waiting.appendleft(number)
        self._died[name] += 1
        if self._died[name] == MOST_TRIES:
            raise MmembedError(f"{name}: {MOST_TRIES} actors died of it; the last: {why}")
        log.warning("%s: its actor died and another one follows: %s", name, why)


class _Maker:
    """Has the encoder, and makes shards."""

    def __init__(self, make: MakeShard) -> None:
        self._make = make

    def open(self) -> None:
        """Load the encoder and find the clips.

        Raises:
            UsageError: the folders of the driver are not seen here.
        """
        for folder in self._make.opened.plan.folders:
            if not (folder / "run.json").is_file():
                raise UsageError(f"{folder}: not seen on node {os.uname().nodename}; all have to")

    def make(self, number: int) -> None:
        self._make(number)


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"
