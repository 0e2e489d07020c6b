"""extract.py killed, on a full disk and among broken clips: nothing is lost and nothing changed."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import webdataset
from helpers.clips import grey_steps, tone, write_video
from helpers.extracting import PROGRAM, WORDS, Extract, contents
from helpers.forker import Forker

from mmembed.commands.cli import run_program
from mmembed.commands.verify import main as verify
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import is_committed


def test_a_full_disk_commits_nothing(extract: Extract, here: Path) -> None:
    """A limit on the size of files stands in for the disk's."""
    words = ["corpus/shards", "--out", "full", "--streams", "audio", "audio+video"]
    code, said = extract(*words, largest_file=20_000)
    assert code == 74 and said.splitlines()[-1].startswith("error: [Errno 27] File too large")
    left = contents(here / "full")
    assert set(left) == {"audio/run.json", "audio+video/run.json"}  # neither shards nor temporaries
    assert extract(*words)[0] == 0
    assert run_program(verify, [str(here / "full")]) == 0


def kill_and_compare(forker: Forker, here: Path, kills: int, seed: int) -> Counter[str]:
    """Kill two processes `kills` times at random moments; whenever all is done, compare it with an
    undisturbed run and begin anew.
    """
    argv = ["corpus/shards", "--encoder", "encoder", "--records-per-shard", "3"]
    argv += ["--streams", "audio", "audio+video+text", "--format", "npy"]
    undisturbed, out = here / f"undisturbed-{kills}", here / f"killed-{kills}"
    ((code, said),) = forker([*argv, "--out", str(undisturbed)], cwd=str(here))
    assert code == 0, said
    expected = contents(undisturbed)
    runs = [[*argv, "--out", str(out), "--rank", str(rank), "--world", "2"] for rank in range(2)]
    draw, seen = random.Random(seed), Counter[str]()
    while seen["kills"] < kills:
        kill = {"folder": str(out), "shards": draw.choice((0, 1, 1, 2, 3, 5))}
        kill["seconds"] = draw.uniform(0, 0.3 if kill["shards"] == 0 else 0.05)
        answers = forker(*runs, cwd=str(here), kill=kill)
        assert {code for code, _ in answers} <= {0, -9}, answers
        seen["kills"] += any(code == -9 for code, _ in answers)
        committed = {p: p.stat().st_mtime_ns for p in out.rglob("*.tar") if is_committed(p)}
        begun = [path for path in out.rglob(".shard-*.tmp")]
        assert len({path.name.split(".")[1] for path in begun}) <= 4  # each lost two at most
        seen["begun"] += len(begun)
        for path in committed:
            assert path.read_bytes() == expected[str(path.relative_to(out))]
        if draw.random() < 0.25 or seen["kills"] == kills:
            answers = forker(*runs, cwd=str(here))
            assert [code for code, _ in answers] == [0, 0], answers
            assert {p: p.stat().st_mtime_ns for p in committed} == committed  # not made again
            assert contents(out) == expected  # nothing changed, no temporary left
            shutil.rmtree(out)
            seen["finished"] += 1
    return seen


@pytest.mark.slow
def test_killed_runs_leave_the_same_bytes(forker: Forker, here: Path) -> None:
    seen = kill_and_compare(forker, here, kills=6, seed=0)
    assert seen["begun"] and seen["finished"]


@pytest.mark.long
def test_killed_a_hundred_times(forker: Forker, here: Path) -> None:
    seen = kill_and_compare(forker, here, kills=100, seed=1)
    assert seen["begun"] > 10 and seen["finished"] > 10


@pytest.mark.long
def test_killed_under_torchrun(here: Path, extract: Extract) -> None:
    words = ["corpus/shards", "--records-per-shard", "3"]
    assert extract(*words, "--out", "calm")[0] == 0
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *torchrun, str(PROGRAM), *words, "--encoder", "encoder"]
    command += ["--out", "storm"]
    draw = random.Random(0)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for _ in range(4):
        run = subprocess.Popen(
            command, cwd=here, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(draw.uniform(4, 12))
        os.killpg(run.pid, 9)
        run.wait()
    done = subprocess.run(command, cwd=here, env=environment, check=False, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert contents(here / "storm") == contents(here / "calm")


def broken_rows(folder: Path, each: int) -> list[Utterance]:
    """Rows that are broken in nine ways."""
    sound, film = folder / "good.wav", folder / "good.mp4"
    soundfile.write(sound, tone(0.1), 16_000)
    write_video(film, grey_steps(range(30, 80, 5)), np.arange(10) / 25, tone(0.4))
    (folder / "cut.wav").write_bytes(sound.read_bytes()[:-999])
    (folder / "cut.mp4").write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    (folder / "empty.wav").touch()
    (folder / "text.mp4").write_text("This is no film. " * 20)
    (folder / "folder.mp4").mkdir()
    ways: dict[str, dict[str, Any]] = {
        "missing": {"media": "lost.wav"},
        "empty": {"media": "empty.wav"},
        "not_media": {"media": "text.mp4"},
        "folder": {"media": "folder.mp4"},
        "damaged": {"media": "cut.wav"},
        "half": {"media": "cut.mp4"},
        "no_streams": {"media": None, "transcript": "?!"},
        "too_short": {"media": "good.wav", "start": 9.0},
        "too_long": {"media": "good.wav", "end": 90_000.0},
    }
    return [Utterance(f"{way}-{n}", **held) for n in range(each) for way, held in ways.items()]


REASONS = {"folder": "not_media", "half": "damaged"}


def lose_nothing(extract: Extract, here: Path, total: int, broken: int) -> None:
    folder = here / f"lossy-{total}"
    folder.mkdir()
    bad = broken_rows(folder, -(-broken // 9))[:broken]
    assert len({row.key.split("-")[0] for row in bad}) == 9
    good = [
        Utterance(f"good-{n}", *([None] if n % 3 else ["good.wav"]), transcript=WORDS[n % 2])
        for n in range(total - broken)
    ]
    rows = [*good, *bad]
    random.Random(0).shuffle(rows)
    write_manifest(folder / "rows.jsonl", rows)
    words = [f"{folder.name}/rows.jsonl", "--records-per-shard", max(9, total // 10)]
    words += ["--batch-frames", 20]
    code, said = extract(*words, "--out", f"{folder.name}/out", "--workers", 1)
    assert code == 3, said
    listed = [json.loads(x) for x in (folder / "out" / "failed.jsonl").read_text().splitlines()]
    ways = {row.key: row.key.split("-")[0] for row in bad}
    assert {one["item"]: one["reason"] for one in listed} == {
        key: REASONS.get(way, way) for key, way in ways.items()
    }
    tars = [str(path) for path in sorted((folder / "out").glob("*.tar"))]
    found = [x["__key__"] for x in webdataset.WebDataset(tars, shardshuffle=False)]
    assert found == [row.key for row in rows if row.key not in ways]
    assert f"{len(good)} embeddings" in said and f"{broken} failed" in said
    for workers in (2, 3):
        again = ["--out", f"{folder.name}/{workers}", "--workers", workers]
        env = {"OMP_NUM_THREADS": str(workers)}
        code, _ = extract(*words, *again, "--error-budget", "0.5", env=env)
        assert code == 0 and contents(folder / str(workers)) == contents(folder / "out")


def test_nothing_is_lost_without_a_line(extract: Extract, here: Path) -> None:
    lose_nothing(extract, here, total=60, broken=9)


@pytest.mark.long
def test_a_thousand_of_which_37_are_broken(extract: Extract, here: Path) -> None:
    lose_nothing(extract, here, total=1000, broken=37)
