"""A busy process is waited for, a lost one is not: over a store in this process."""

from __future__ import annotations

import datetime
import threading
import time

import pytest
from torch.distributed import HashStore

from mmembed.errors import MmembedError
from mmembed.training import heartbeat
from mmembed.training.heartbeat import Heartbeat


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> list[Heartbeat]:
    monkeypatch.setattr(heartbeat, "EVERY", 0.02)
    store, timeout = HashStore(), datetime.timedelta(seconds=1)
    return [Heartbeat(store, rank, 2, timeout) for rank in (0, 1)]


def test_one_that_is_busy_for_longer_than_the_timeout(pair: list[Heartbeat]) -> None:
    here: list[int] = []

    def wait(rank: int, seconds: float) -> None:
        time.sleep(seconds)
        here.append(rank)
        pair[rank].meet()

    threads = [threading.Thread(target=wait, args=(rank, 2.0 * rank)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    threads[0].join(0.5)
    assert threads[0].is_alive() and here == [0]
    for thread in threads:
        thread.join()
    assert here == [0, 1]
    for one in pair:
        one.end()


def test_one_that_gives_no_sign_of_life(pair: list[Heartbeat]) -> None:
    pair[1].end()
    with pytest.raises(MmembedError, match="process 1 has given no sign of life for 1 s"):
        pair[0].meet()
    pair[0].end()
