"""Decoding in processes of its own: whatever a clip does, the others come through, in order."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, grey_steps, tone, write_video
from helpers.loading import load_example

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media import pool
from mmembed.data.media.load import MediaSource, ReadySource
from mmembed.data.media.pool import Decoder
from mmembed.errors import DataError, UsageError


def task(folder: Path, name: str, **fields: object) -> MediaSource:
    return MediaSource(Utterance(name.replace(".", "-"), name, **fields), folder)  # type: ignore[arg-type]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.2 + number / 10), RATE)
    write_video(tmp_path / "film.mp4", grey_steps(range(60, 70)), np.arange(10) / 25, tone(0.4))
    return tmp_path


@pytest.mark.parametrize("workers", [1, 3])
def test_examples_come_in_order_and_bit_for_bit(clips: Path, workers: int) -> None:
    text = MediaSource(Utterance("t", None, transcript="Hello"), clips)
    tasks = [*(task(clips, f"{n}.wav", transcript="one") for n in range(6)), text]
    tasks.insert(2, task(clips, "film.mp4"))
    with Decoder(workers) as decoder:
        found = list(decoder.load(tasks))
    for asked, example in zip(tasks, found, strict=True):
        here = load_example(asked.utterance, clips)
        assert isinstance(example, Example)
        assert (example.utterance, example.text) == (asked.utterance, here.text)
        assert example.info == here.info
        for stream in ("audio", "video"):
            np.testing.assert_array_equal(getattr(example, stream), getattr(here, stream))


def test_what_cannot_be_loaded_says_why(clips: Path) -> None:
    (clips / "empty.mp4").touch()
    tasks = [task(clips, name) for name in ("lost.wav", "0.wav", "empty.mp4")]
    with Decoder() as decoder:
        lost, good, empty = decoder.load([*tasks])
    assert isinstance(good, Example)
    assert isinstance(lost, DataError) and lost.reason == "missing"
    assert isinstance(empty, DataError) and empty.reason == "empty"
    assert str(empty) == f"{clips / 'empty.mp4'}: the file is empty"


def test_relative_paths_start_here(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Decoder() as decoder:
        (first,) = decoder.load([task(clips, "0.wav")])
        monkeypatch.chdir(clips)
        (second,) = decoder.load([task(Path(), "0.wav")])
    assert isinstance(first, Example) and isinstance(second, Example)


def test_a_clip_that_takes_too_long_costs_itself_alone(clips: Path) -> None:
    tasks = [task(clips, f"{n}.wav") for n in range(6)]
    with Decoder(seconds=3) as decoder:
        found = decoder.load(tasks)
        assert isinstance(next(found), Example)
        (child,) = decoder._children
        os.kill(child._process.pid, signal.SIGSTOP)  # as if a decoder ran in circles
        rest = list(found)
    reasons = [e.reason for e in rest if isinstance(e, DataError)]
    assert len(rest) == 5 and reasons == ["timeout"]
    assert "took more than 3 s" in str(next(e for e in rest if isinstance(e, DataError)))


def test_a_clip_that_needs_too_much_memory_costs_itself_alone(clips: Path) -> None:
    many = np.arange(250) / 25
    write_video(clips / "large.mp4", grey_steps([80] * 250, 480, 480), many)  # 58 MB of pictures
    tasks = [task(clips, name) for name in ("0.wav", "large.mp4", "1.wav")]
    with Decoder(memory=400 << 20) as decoder:
        assert all(isinstance(example, Example) for example in decoder.load(tasks))
    with Decoder(memory=40 << 20) as decoder:
        first, large, last = decoder.load(tasks)
    assert isinstance(first, Example) and isinstance(last, Example)
    assert isinstance(large, DataError) and large.reason == "memory"


def test_a_process_that_dies_costs_one_clip(clips: Path) -> None:
    tasks = [task(clips, f"{n}.wav") for n in range(6)]
    with Decoder() as decoder:
        found = decoder.load(tasks)
        assert isinstance(next(found), Example)
        (child,) = decoder._children
        child._process.kill()
        rest = list(found)
    reasons = [e.reason for e in rest if isinstance(e, DataError)]
    assert len(rest) == 5 and reasons in (["crashed"], [])  # [] if all were done by then


PROGRAM = """
import sys
import threading
from pathlib import Path
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media import pool
from mmembed.data.media.load import MediaSource, ReadySource
from mmembed.data.media.pool import Decoder

if __name__ == "__main__":
    with Decoder(2) as decoder:
        for place in range(10**6):
            for _ in decoder.load([MediaSource(Utterance("a", sys.argv[1]), Path())] * 2):
                print(*(c._process.pid for c in decoder._children), flush=True)
"""


def test_children_do_not_outlive_a_killed_parent(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    arguments = [sys.executable, str(tmp_path / "program.py"), str(clips / "0.wav")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        children: list[str] = []
        while len(children) < 2:
            children = program.stdout.readline().split()
        program.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in children):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_at_least_one_worker() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        Decoder(0)


def pids(decoder: Decoder) -> list[int]:
    return [child._process.pid for child in decoder._children]


def test_processes_are_kept_between_calls_and_end_when_it_is_closed(clips: Path) -> None:
    decoder = Decoder(3)
    assert pids(decoder) == []
    for number in range(4):
        assert isinstance(next(decoder.load([task(clips, f"{number}.wav")])), Example)
        assert len(pids(decoder)) == 1  # as many as there is work for
    (first,) = pids(decoder)
    assert len(list(decoder.load([task(clips, f"{n}.wav") for n in range(6)]))) == 6
    assert len(pids(decoder)) == 3 and first in pids(decoder)
    with decoder:
        pass
    assert pids(decoder) == [] and not Path(f"/proc/{first}").exists()
    assert isinstance(next(decoder.load([task(clips, "0.wav")])), Example)
    (last,) = pids(decoder)
    del decoder
    assert not Path(f"/proc/{last}").exists()


def test_what_nobody_waits_for_ends_with_its_process(clips: Path) -> None:
    """The second of two clips would keep the only process busy."""
    decoder = Decoder(1, seconds=60)
    found = decoder.load([task(clips, "0.wav"), task(clips, "1.wav")])
    assert isinstance(next(found), Example)
    (child,) = decoder._children
    os.kill(child._process.pid, signal.SIGSTOP)
    found.close()  # type: ignore[attr-defined]
    begun = time.monotonic()
    assert isinstance(next(decoder.load([task(clips, "2.wav")])), Example)
    assert time.monotonic() - begun < 30
    decoder.close()


def test_calls_may_overlap(clips: Path) -> None:
    """In two threads, and in one whose first call is not at its end."""
    expected = [load_example(task(clips, f"{n}.wav").utterance, clips).audio for n in range(6)]

    def load(decoder: Decoder) -> list[object]:
        return list(decoder.load([task(clips, f"{n}.wav") for n in range(6)]))

    with Decoder(2) as decoder, ThreadPoolExecutor(3) as threads:
        one = decoder.load([task(clips, f"{n}.wav") for n in range(6)])
        found = [[next(one), *load(decoder)[1:]], *threads.map(load, [decoder] * 3)]
        rest = list(one)
    for examples in [*found, [found[0][0], *rest]]:
        for example, audio in zip(examples, expected, strict=True):
            assert isinstance(example, Example)
            np.testing.assert_array_equal(example.audio, audio)


def test_an_answer_that_another_thread_reads_is_not_waited_for(
    clips: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where it is faster than this one, which has just begun to wait."""
    waited = list[float]()

    def slow(connections: list[Connection], lasts: float = 0.0) -> list[object]:
        if lasts and not waited:
            waited.append(lasts)
            while not (ready := wait(connections, 0)):
                time.sleep(0.01)
            other = threading.Thread(target=decoder._collect)  # reads it
            other.start()
            other.join()
            assert ready and not wait(connections, 0)
        return wait(connections, lasts)

    monkeypatch.setattr(pool, "wait", slow)
    with Decoder(1) as decoder:
        began = time.monotonic()
        assert isinstance(next(decoder.load([task(clips, "0.wav")])), Example)
    assert waited and time.monotonic() - began < pool.TIMEOUT / 4


def test_another_thread_may_close_it(clips: Path) -> None:
    decoder = Decoder(1, seconds=60)
    assert isinstance(next(decoder.load([task(clips, "0.wav")])), Example)
    (child,) = decoder._children
    os.kill(child._process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as threads:
        lost = threads.submit(lambda: list(decoder.load([task(clips, "1.wav")])))
        while child.pending is None:
            time.sleep(0.01)
        decoder.close()
        (error,) = lost.result(30)
    assert isinstance(error, DataError) and error.reason == "crashed"


def test_features_that_wait_are_bounded(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the first clip takes its time, no more are decoded than may be kept."""
    asked = list[str]()
    begin = pool._Child.begin

    def watch(child: pool._Child, pending: pool._Pending, seconds: float) -> None:
        if not asked:
            os.kill(child._process.pid, signal.SIGSTOP)
        asked.append(pending.source.key)
        begin(child, pending, seconds)

    monkeypatch.setattr(pool._Child, "begin", watch)
    monkeypatch.setattr(pool, "MOST_HELD", 20_000)  # bytes; clips 1 and 2 have 22,400
    tasks = [task(clips, f"{n}.wav") for n in range(6)]
    with Decoder(2) as decoder, ThreadPoolExecutor(1) as threads:
        loaded = threads.submit(lambda: list(decoder.load(tasks)))
        while len(asked) < 3:
            time.sleep(0.01)
        time.sleep(0.5)
        assert asked == ["0-wav", "1-wav", "2-wav"]
        os.kill(decoder._children[0]._process.pid, signal.SIGCONT)
        assert all(isinstance(example, Example) for example in loaded.result(30))
    assert len(asked) == 6


def test_a_copy_has_processes_of_its_own(clips: Path) -> None:
    with Decoder(2, seconds=7) as decoder:
        assert isinstance(next(decoder.load([task(clips, "0.wav")])), Example)
        copy = pickle.loads(pickle.dumps(decoder))
        assert pids(copy) == [] and vars(copy)["_seconds"] == 7


def test_what_needs_no_process_is_loaded_when_its_turn_has_come(clips: Path) -> None:
    """Not ahead, which would take memory and gain nothing."""
    read = list[int]()

    def load(number: int) -> Example:
        read.append(number)
        return Example(Utterance(f"r{number}", None), text="red")

    ready = [ReadySource(f"r{n}", "", partial(load, n)) for n in range(6)]
    with Decoder(3) as decoder:
        found = decoder.load([ready[0], task(clips, "0.wav"), *ready[1:]])
        keys = [(x.key, len(read)) for x in found if isinstance(x, Example)]
    assert keys == [("r0", 1), ("0-wav", 1), *((f"r{n}", n + 1) for n in range(1, 6))]
