"""Ways to share extraction: shard by shard, as they come, and again what failed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.extracting import PROGRAM, Extract, contents
from helpers.forker import Forker

from mmembed.embeddings.extraction import MakeShard
from mmembed.settings.extract import Extract as Settings

WORK = ["corpus/shards", "--records-per-shard", "6", "--streams", "audio", "audio+video+text"]


@pytest.fixture(scope="module")
def expected(extract: Extract, here: Path) -> dict[str, bytes]:
    """What one process leaves."""
    code, said = extract(*WORK, "--out", "whole")
    assert code == 0, said
    return contents(here / "whole")


def shards(extract: Extract, out: str, *more: str) -> list[dict[str, object]]:
    code, said = extract(*WORK, "--out", out, "--plan", "--json", *more)
    assert code == 0, said
    plan = json.loads(said[said.index("{") :])
    assert plan["clips"] == 30
    rows: list[dict[str, object]] = plan["shards"]
    return rows


@pytest.mark.slow
def test_shards_are_made_one_by_one(
    extract: Extract, here: Path, expected: dict[str, bytes]
) -> None:
    rows = shards(extract, "single")
    assert [row["shard"] for row in rows] == [*range(5)] and not (here / "single").exists()
    assert rows[0] == {
        "shard": 0, "clips": 6, "done": False, "bytes": 0,
        "missing": ["single/audio", "single/audio+video+text"],
    }  # fmt: skip
    assert extract(*WORK, "--out", "single", "--shard", "3")[0] == 0
    done = [row for row in shards(extract, "single") if row["done"]]
    (tars,) = [[held for name, held in expected.items() if "shard-000003.tar" in name]]
    assert [row["shard"] for row in done] == [3] and done[0]["bytes"] == sum(map(len, tars))
    for number in range(4, -1, -1):
        assert extract(*WORK, "--out", "single", "--shard", number)[0] == 0
    assert contents(here / "single") == expected  # the last one made the manifest, too
    code, said = extract(*WORK, "--out", "single", "--shard", "5")
    assert code == 2 and said.splitlines()[-1] == "error: --shard 5: there are shards 0 to 4"
    table = extract(*WORK, "--out", "single", "--plan")[1]
    assert table.splitlines()[-1] == "5 of 5 shards are done"


MAKE = """
import pickle, sys
make = pickle.loads(sys.stdin.buffer.read())
for number in map(int, sys.argv[1:]):
    print(make(number), number in make.missing)
"""


def test_another_process_makes_shards_by_number(
    extract: Extract, here: Path, expected: dict[str, bytes]
) -> None:
    """Started in another folder; two make the same one, and no process is asked to finish."""
    work = Settings(
        ("corpus/shards",), ("encoder",), Path("sent"),
        records_per_shard=6, streams=("audio", "audio+video+text"),
    )  # fmt: skip
    make = pickle.dumps(MakeShard(work, here))
    command = [sys.executable, "-c", MAKE]
    begun = [
        subprocess.Popen([*command, *numbers], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for numbers in ("024", "123")
    ]
    for process in begun:
        assert process.stdin
        process.stdin.write(make)
        process.stdin.close()
    said = [process.stdout.read() for process in begun if process.stdout]
    assert [process.wait(60) for process in begun] == [0, 0]
    assert said == [b"6 False\n" * 3] * 2
    assert not (here / "sent" / "audio" / "manifest.json").exists()
    assert extract(*WORK, "--out", "sent")[0] == 0  # makes none
    assert contents(here / "sent") == expected


def test_takers_share_what_there_is(forker: Forker, here: Path, expected: dict[str, bytes]) -> None:
    leases = here / "taken" / ".leases"
    leases.mkdir(parents=True)
    (leases / "4.lease").write_text("of a process that died")
    os.utime(leases / "4.lease", (1, 1))
    run = [*WORK, "--encoder", "encoder", "--out", "taken", "--take"]
    answers = forker(run, run, run, cwd=str(here))
    assert [code for code, _ in answers] == [0, 0, 0], answers
    assert contents(here / "taken") == expected
    assert not [*leases.iterdir()]
    ((code, said),) = forker([*run, "--rank", "0", "--world", "2"], cwd=str(here))
    assert code == 2 and "--take and --rank: one way to share the work" in said


@pytest.mark.long
def test_takers_that_are_killed_or_stopped_lose_nothing(
    here: Path, expected: dict[str, bytes]
) -> None:
    """Four of them: two killed, one stopped for 90 s; the last makes all that is left."""
    out = here / "stopped"
    command = [sys.executable, str(PROGRAM), *WORK, "--encoder", "encoder", "--take"]
    running = [
        subprocess.Popen([*command, "--out", str(out)], cwd=here, start_new_session=True)
        for _ in range(4)
    ]
    while not [*out.rglob("shard-*.json")]:
        time.sleep(0.01)
    for process in running[:2]:
        process.kill()
    os.killpg(running[2].pid, signal.SIGSTOP)
    time.sleep(90)
    os.killpg(running[2].pid, signal.SIGCONT)
    assert [process.wait(200) for process in running] == [-9, -9, 0, 0]
    assert contents(out) == expected


@pytest.mark.slow
def test_what_failed_is_made_again(extract: Extract, here: Path) -> None:
    """The shards that list such failures, and no others; old ones stay until new ones are whole."""
    clips = here / "some"
    clips.mkdir()
    for number in range(6):
        shutil.copy(here / "clips" / "c[1].wav", clips / f"{number}.wav")
    (clips / "2.wav").write_bytes(b"RIFF, but no sound")
    words = ["some", "--records-per-shard", "2", "--out", "again", "--error-budget", "1"]
    assert extract(*words)[0] == 0
    before, tars = contents(here / "again"), sorted((here / "again").glob("*.tar"))
    (failure,) = map(json.loads, before["failed.jsonl"].splitlines())

    def stamps() -> list[int]:
        return [tar.stat().st_mtime_ns for tar in tars]

    first = stamps()
    assert extract(*words, "--retry-failed", "timeout")[0] == 0 and stamps() == first
    code, said = extract(*words, "--retry-failed", "any", largest_file=2_000)
    assert code == 74, said
    assert contents(here / "again") == before and stamps() == first
    assert extract(*words, "--retry-failed", failure["reason"], "--timeout", "500")[0] == 0
    assert [a == b for a, b in zip(stamps(), first, strict=True)] == [True, False, True]
    after = contents(here / "again")
    assert after["shard-000001.tar"] == before["shard-000001.tar"]
    assert after["failed.jsonl"] == before["failed.jsonl"]
    rows = json.loads(extract(*words, "--plan", "--json", "--retry-failed", "any")[1])["shards"]
    assert [row["done"] for row in rows] == [True, False, True]
