"""Shards on their way to an object store: killed and raced at each of their requests."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.stores import object_store, stored

from mmembed.data.shards.layout import Record, ShardSet, shard_path, write_shard
from mmembed.embeddings.output import StoreOutput
from mmembed.embeddings.plan import Plan
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.io.store import Store

TAR, INDEX = "shard-000000.tar", "shard-000000.json"

_numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def store() -> Iterator[None]:
    with object_store():
        yield


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path / "cache"))
    return f"s3://bucket/{next(_numbers)}"


class Process:
    """One that makes one shard; `value` is what it finds, as machines may differ in rounding."""

    def __init__(self, url: str, folder: Path, value: float) -> None:
        self.folder, self.value = folder, value
        self.output = StoreOutput(url, folder)
        self.plan = Plan([None], {folder: ("audio",)}, 1, is_committed=self.output.is_committed)  # type: ignore[list-item]
        self.output.look(self.plan, [0])

    def make(self) -> None:
        arrays = {"pooled.npy": np.full(9, self.value), "json": {"value": self.value}}
        write_shard(shard_path(self.folder, 0), [Record("clip", arrays)], {"by": "a test"})
        self.output.commit(0)

    def make_again(self) -> None:
        self.plan.renew(shard_path(self.folder, 0))
        assert self.plan.missing(0) == [self.folder]
        self.make()


@pytest.fixture
def process(url: str, tmp_path: Path) -> Callable[[float], Process]:
    return lambda value: Process(url, tmp_path / str(next(_numbers)), value)


def remove_all(url: str) -> None:
    for name in stored(url):
        Store(url).delete(name)


def value_of(url: str) -> float:
    """What is there is whole: the index is that of the tar."""
    left = {name: data for name, data in stored(url).items() if not name.startswith(".")}
    assert left.keys() == {TAR, INDEX}
    assert json.loads(left[INDEX])["sha256"] == hashlib.sha256(left[TAR]).hexdigest()
    record = ShardSet(url).read(0)
    assert record.members["pooled.npy"].tolist() == [record.members["json"]["value"]] * 9
    return float(record.members["json"]["value"])


def check_commits(url: str) -> None:
    """An index never stands without its tar."""
    left = stored(url)
    if INDEX in left:
        assert json.loads(left[INDEX])["sha256"] == hashlib.sha256(left[TAR]).hexdigest()


class Killed(BaseException):
    pass


class Requests:
    """Does something before a request, or after it, counted from 0; once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count, self.at, self.action = 0, -1, lambda: None
        self._after = False
        self.others, self.last = 0, -1  # requests of other threads, and the last that they make
        call = Store._call

        def counted(store: Store, *arguments: Any) -> Any:
            mine = threading.current_thread() is threading.main_thread()
            self.count += mine
            self.others += not mine
            if not mine and self.others - 1 == self.last:
                raise Killed
            if mine and self.count - 1 == self.at and not self._after:
                self.action()
            answer = call(store, *arguments)
            if mine and self.count - 1 == self.at and self._after:
                self.action()
            return answer

        patch.setattr(Store, "_call", counted)

    def set(self, at: int, after: bool, action: Callable[[], None]) -> None:
        self.count, self.at, self._after, self.action = 0, at, after, action


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Requests:
    return Requests(monkeypatch)


def kill() -> None:
    raise Killed


def elsewhere(action: Callable[[], None]) -> None:
    """Do it in another thread, whose requests are not counted."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("again", [False, True])
def test_killed_at_each_request(
    url: str, process: Callable[[float], Process], requests: Requests, again: bool, every: int
) -> None:
    """The next process goes on, whether it finds the same or rounds in another way."""
    if again:
        process(0).make()
    at = 0
    while True:
        first = process(2 * at + 1)
        requests.set(at, at % 2 == 1, kill)
        try:
            first.make_again() if again else first.make()
        except Killed:
            check_commits(url)
        else:
            break
        requests.set(-1, False, kill)
        second = process(2 * at + 1 if at % 4 < 2 else 2 * at + 2)
        if second.output.is_committed(shard_path(second.folder, 0)):
            second.make_again()
        else:
            second.make()
        assert value_of(url) in (first.value, second.value)
        held = json.loads((second.folder / INDEX).read_bytes())
        assert held["sha256"] == hashlib.sha256(stored(url)[TAR]).hexdigest()
        if not again:
            remove_all(url)
        at += every
    assert at > 5


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("again", [False, True])
def test_another_process_is_faster_at_each_request(
    url: str, process: Callable[[float], Process], requests: Requests, again: bool, every: int
) -> None:
    at, happened = 0, True
    while happened:
        if again:
            process(0).make()
        slow, fast, happened = process(1), process(2), False

        def hurry(fast: Process = fast) -> None:
            nonlocal happened
            happened = True
            elsewhere(fast.make_again if again else fast.make)

        requests.set(at, False, hurry)
        slow.make_again() if again else slow.make()
        requests.set(-1, False, kill)
        assert value_of(url) in (1, 2)
        for one in (slow, fast):
            one.output.refresh(one.plan)
            assert one.plan.complete
            held = json.loads((one.folder / INDEX).read_bytes())
            assert held["sha256"] == hashlib.sha256(stored(url)[TAR]).hexdigest()
        remove_all(url)
        at += every
    assert at > 5


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.long)])
def test_another_process_is_killed_meanwhile(
    url: str, process: Callable[[float], Process], requests: Requests, every: int
) -> None:
    """Between the tar and the index of one, another one gets to each of its requests, and dies."""
    for at in range(every, 5, every):
        last, killed = 0, True
        while killed:
            slow, fast = process(1), process(2)
            killed = False

            def hurry(fast: Process = fast) -> None:
                def make() -> None:
                    nonlocal killed
                    try:
                        fast.make()
                    except Killed:
                        killed = True

                requests.others = 0
                elsewhere(make)

            requests.last = last
            requests.set(at, False, hurry)
            slow.make()
            requests.set(-1, False, kill)
            assert value_of(url) in (1, 2)
            remove_all(url)
            last += 1
        assert last > 5


def test_tars_take_no_space_here(
    url: str, process: Callable[[float], Process], caplog: pytest.LogCaptureFixture
) -> None:
    one, two, three = process(1), process(1), process(3)
    one.make()
    tar = shard_path(one.folder, 0)
    assert tar.stat().st_blocks == 0 and tar.stat().st_size == len(stored(url)[TAR])
    with caplog.at_level(logging.WARNING):
        two.make()  # the same
        assert caplog.messages == []
        three.make()
    assert caplog.messages == [f"{url}/{TAR}: another process made it, too"]
    assert value_of(url) == 1
    assert all(shard_path(each.folder, 0).stat().st_blocks == 0 for each in (two, three))


def test_what_is_there_is_checked(url: str, process: Callable[[float], Process]) -> None:
    process(1).make()
    store = Store(url)
    tar, index = stored(url)[TAR], stored(url)[INDEX]
    for data, why in ((tar[:-1], r"\.tar: damaged: \d+ bytes"), (None, r"\.tar: missing, its")):
        store.delete(TAR) if data is None else store.put(TAR, data)
        with pytest.raises(CorruptError, match=f"^{url}/shard-000000{why}"):
            process(1)
    store.put(TAR, tar)
    store.put(INDEX, index.replace(b"clip", b"clap"))
    with pytest.raises(CorruptError, match=rf"^{url}/{INDEX}: damaged: its checksum differs"):
        process(1)


def test_a_run_belongs_to_its_settings(
    url: str, process: Callable[[float], Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three = process(1), process(1), process(1)
    one.output.claim(one.folder, {"dtype": "float16", "command": "a"}, ("command",), "")
    two.output.claim(two.folder, {"dtype": "float16", "command": "b"}, ("command",), "")
    assert json.loads(stored(url)["run.json"])["command"] == "a"
    for late in (three, process(1)):  # it was there at its start, or was not
        with pytest.raises(UsageError, match=f"^{url} holds a run with other settings .*dtype"):
            late.output.claim(late.folder, {"dtype": "float32", "command": "a"}, ("command",), "")
    put = Store._put
    for ignored in ("IfMatch", "IfNoneMatch"):

        def ignore(*arguments: Any, ignored: str = ignored, **options: Any) -> str | None:
            options.pop(ignored, None)
            return put(*arguments, **options)

        monkeypatch.setattr(Store, "_put", ignore)
        with pytest.raises(UsageError, match="knows no conditional writes"):
            two.output.claim(two.folder, {"dtype": "float16", "command": "b"}, ("command",), "")


def test_no_such_bucket(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^s3://none-such/x: there is no such"):
        Process("s3://none-such/x", tmp_path, 1)
