"""The cache of fetched files: bounded, shared, and unharmed by those that are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest

import mmembed.io.cache
from mmembed.errors import DataError
from mmembed.io.cache import Cache

SIZE = 1000


def content(name: str) -> bytes:
    return name.encode() * (SIZE // len(name))


def used(folder: Path) -> int:
    """Bytes of the files there, and of those being fetched with the size they will have."""
    return SIZE * len({path.name[:4] for path in folder.glob("[!.]*")})


def read(cache: Cache, name: str) -> None:
    def fetch(part: Path) -> None:
        with cache._lock():  # nobody makes room while we look
            assert used(cache.folder) <= cache.limit
        part.write_bytes(content(name)[:500])
        time.sleep(0.001)
        part.write_bytes(content(name))

    file = cache.open(name, SIZE, fetch)
    assert os.pread(file.number, SIZE + 1, 0) == content(name)


@pytest.mark.parametrize("places", [1, 3])
def test_processes_share_a_bounded_cache(tmp_path: Path, places: int) -> None:
    cache = Cache(tmp_path / "cache", places * SIZE)
    children = []
    for seed in range(4):
        if (child := os.fork()) == 0:
            try:
                for number in np.random.default_rng(seed).integers(0, 6, 30).tolist():
                    read(cache, f"nam{number}")
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    left = sorted(path.name for path in cache.folder.glob("[!.]*"))
    assert len(left) == places
    assert all((cache.folder / name).read_bytes() == content(name) for name in left)


def test_the_file_not_used_for_longest_goes(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * SIZE)
    for name in ("nam0", "nam1", "nam2", "nam0", "nam3"):
        read(cache, name)
        time.sleep(0.01)  # the clock of files is coarse
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == ["nam0", "nam2", "nam3"]


def test_a_killed_fetch_leaves_no_trace(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)

    def stop(part: Path) -> None:
        part.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    if (child := os.fork()) == 0:
        cache.open("nam0", SIZE, stop)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["nam0.1000.part"]
    read(cache, "nam1")  # which needs all the room
    assert [path.name for path in tmp_path.glob("[!.]*")] == ["nam1"]


def test_a_failed_fetch_leaves_no_trace(tmp_path: Path) -> None:
    cache = Cache(tmp_path, SIZE)

    def fail(part: Path) -> None:
        part.write_bytes(b"half")
        raise OSError("out of reach")

    with pytest.raises(OSError, match="out of reach"):
        cache.open("nam0", SIZE, fail)
    assert list(tmp_path.glob("[!.]*")) == []


def test_waits_for_room_no_longer_than_it_must(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, fetching, done = Cache(tmp_path, SIZE), threading.Event(), threading.Event()

    def slow(part: Path) -> None:
        fetching.set()
        done.wait(10)
        part.write_bytes(content("nam0"))

    thread = threading.Thread(target=cache.open, args=("nam0", SIZE, slow))
    thread.start()
    fetching.wait(10)
    monkeypatch.setattr(mmembed.io.cache, "TIMEOUT", 0.1)
    with pytest.raises(DataError, match="no room in"):
        read(cache, "nam1")
    done.set()
    thread.join()
    read(cache, "nam1")
    with pytest.raises(DataError, match="takes 1001 bytes"):
        cache.open("nam2", SIZE + 1, slow)
