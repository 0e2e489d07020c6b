"""Claims of several processes on one folder, of which some die and some are stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from mmembed.io.leases import LEASE, Leases


def age(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_one_has_it_until_it_is_given_up(tmp_path: Path) -> None:
    one, other = Leases(tmp_path), Leases(tmp_path)
    with one, other:
        assert one.take("a") and not other.take("a") and not one.take("a")
        assert other.take("b")
        one.release("a")
        assert other.take("a")
    assert [*tmp_path.iterdir()] == []


def test_what_was_not_renewed_can_be_taken(tmp_path: Path) -> None:
    one, other = Leases(tmp_path), Leases(tmp_path)
    assert one.take("a")
    age(tmp_path / "a.lease", LEASE - 5)
    assert not other.take("a")
    age(tmp_path / "a.lease", 10)
    assert other.take("a")
    one.release("a")  # no longer its own
    assert not one.take("a")


def test_claims_are_renewed(tmp_path: Path) -> None:
    one, other = Leases(tmp_path, 0.4), Leases(tmp_path, 0.4)
    with one:
        assert one.take("a")
        for _ in range(10):
            time.sleep(0.1)
            assert not other.take("a")


WORKER = """
import sys, time
from pathlib import Path
from mmembed.io.leases import Leases
folder, count = Path(sys.argv[1]), int(sys.argv[2])
with Leases(folder / "leases", 1.0) as leases:
    while missing := [n for n in range(count) if not (folder / f"{n}.done").exists()]:
        for number in missing:
            if leases.take(str(number)):
                if not (folder / f"{number}.done").exists():
                    with (folder / "log").open("a") as log:
                        log.write(f"{number}\\n")
                    time.sleep(0.05)
                    (folder / f"{number}.done").touch()
                leases.release(str(number))
        time.sleep(0.02)
"""


def test_processes_share_the_work_and_take_over_that_of_dead_ones(tmp_path: Path) -> None:
    count = 60
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(count)]
    running = [subprocess.Popen(command) for _ in range(4)]
    while not (tmp_path / "log").exists() or len((tmp_path / "log").read_text().split()) < 8:
        time.sleep(0.01)
    running[0].kill()
    running[1].send_signal(signal.SIGSTOP)
    assert [process.wait(60) for process in running[2:]] == [0, 0]
    running[1].send_signal(signal.SIGCONT)
    assert running[1].wait(60) == 0
    running[0].wait()
    done = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert {*done} == {*range(count)}
    assert len(done) <= count + 2  # what the dead and the stopped one had begun
