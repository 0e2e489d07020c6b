"""Extraction to an object store: the bytes of a local run, whatever happens on the way."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.extracting import PROGRAM, Extract, contents
from helpers.forker import Forker
from helpers.stores import object_store, stored

import mmembed
from mmembed.commands.search import main as search
from mmembed.io.store import Store
from mmembed.studies.embeddings_data import read_folder

WORK = ["corpus/shards", "--records-per-shard", "6", "--streams", "audio", "audio+video+text"]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    cache = tmp_path_factory.mktemp("cache")
    with object_store() as env, pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMEMBED_CACHE", str(cache))
        yield {**env, "MMEMBED_CACHE": str(cache)}


@pytest.fixture(scope="module")
def to_store(extract: Extract, env: dict[str, str]) -> Extract:
    def run(*words: object, **more: Any) -> tuple[int, str]:
        more["env"] = {**env, **more.get("env", {})}
        code, said = extract(*words, imports=["s3fs"], **more)
        assert "nothing" not in said and ".staging" not in said  # no secret, no name of ours
        return code, said

    return run


@pytest.fixture(scope="module")
def expected(extract: Extract, here: Path) -> dict[str, bytes]:
    code, said = extract(*WORK, "--out", "whole")
    assert code == 0, said
    return contents(here / "whole")


def staged() -> list[str]:
    return os.listdir(Path(os.environ["MMEMBED_CACHE"]) / ".staging")


def test_the_bytes_of_a_local_run(
    to_store: Extract, expected: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    url = "s3://bucket/one/deep"
    code, said = to_store(*WORK, "--out", url, "--shard", "3")
    assert code == 0 and "shard 3 is made; others are not" in said, said
    assert {name.partition("/")[2] for name in stored(url)} == {
        "shard-000003.json", "shard-000003.tar", "run.json"
    }  # fmt: skip
    code, said = to_store(*WORK, "--out", url, "--plan", "--json")
    rows = json.loads(said[said.index("{") :])["shards"]
    assert [row["done"] for row in rows] == [False, False, False, True, False]
    assert rows[0]["missing"] == [f"{url}/audio", f"{url}/audio+video+text"]
    (tars,) = [[held for name, held in expected.items() if "shard-000003.tar" in name]]
    assert rows[3]["bytes"] == sum(map(len, tars))
    code, said = to_store(*WORK, "--out", url)
    assert code == 0 and f"60 embeddings in {url}, 0 failed" in said, said
    assert stored(url) == expected and staged() == [".lock"]
    found = mmembed.load_embeddings(f"{url}/audio")
    assert len(found) == 30
    assert read_folder(Path(url) / "audio").keys == found.keys
    search([f"{url}/audio", found.keys[0], "--k", "3"])
    assert found.keys[0] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line", "code"),
    [
        (["--out", "s3://bucket/x", "--take"], "--take: not in an object store; share the", 2),
        (["--out", "s3://bucket/x", "--format", "npy"], "--format npy: not in an object store", 2),
        (["--out", "https://host/x"], "embeddings are written to folders and to s3:// alone", 2),
        (["--out", "gs://bucket/x"], "nor a URL that is allowed", 2),
        (["--out", "s3://none-such/x"], "s3://none-such/x: there is no such file, folder or", 4),
        (["--out", "s3://bucket/one/deep", "--dtype", "float16"], "deep/audio holds a run", 2),
    ],
)
def test_what_cannot_be_is_one_line(
    to_store: Extract, words: list[str], line: str, code: int
) -> None:
    found, said = to_store(*WORK, *words)
    assert found == code and said.splitlines()[-1].startswith("error: ") and line in said, said
    assert "Traceback" not in said


@pytest.mark.long
def test_ranks_are_killed_and_lose_nothing(
    forker: Forker, here: Path, expected: dict[str, bytes], env: dict[str, str]
) -> None:
    url = "s3://bucket/killed"
    run = [*WORK, "--encoder", "encoder", "--out", url, "--world", "2"]
    killed = {"at": "mmembed.embeddings.output:_hidden", "call": 6, "signal": signal.SIGKILL}
    answers = forker(
        *([*run, "--rank", rank] for rank in "01"), cwd=str(here), env=env, inject=[killed]
    )
    assert [code for code, _ in answers] == [-signal.SIGKILL] * 2, answers
    check_commits(url, expected)
    assert len(stored(url)) > 2 and len(staged()) > 1
    answers = forker(*([*run, "--rank", rank] for rank in "01"), cwd=str(here), env=env)
    assert [code for code, _ in answers] == [0, 0], answers
    assert stored(url) == expected and staged() == [".lock"]


@pytest.mark.long
def test_two_processes_race(
    forker: Forker, here: Path, expected: dict[str, bytes], env: dict[str, str]
) -> None:
    run = [*WORK, "--encoder", "encoder", "--out", "s3://bucket/raced"]
    answers = forker(run, run, cwd=str(here), env=env)
    assert [code for code, _ in answers] == [0, 0], answers
    assert stored("s3://bucket/raced") == expected


@pytest.mark.long
def test_shards_are_made_again(extract: Extract, to_store: Extract, here: Path) -> None:
    """Where clips failed, and where they were replaced; others stay as they are."""
    clips = here / "some"
    clips.mkdir()
    for number in range(4):
        shutil.copy(here / "clips" / "c[1].wav", clips / f"{number}.wav")
    (clips / "0.wav").write_bytes(b"RIFF, but no sound")
    words = ["some", "--records-per-shard", "2", "--out"]
    budget = ["--error-budget", "1"]
    assert extract(*words, "again", *budget)[0] == 0
    assert to_store(*words, "s3://bucket/again", *budget)[0] == 0
    first = Store("s3://bucket/again").list()
    assert stored("s3://bucket/again") == contents(here / "again")
    code, said = to_store(*words, "s3://bucket/again", *budget, "--retry-failed", "any")
    assert code == 0, said  # the same failure again: nothing is put
    assert Store("s3://bucket/again").list().keys() == first.keys()
    assert stored("s3://bucket/again") == contents(here / "again")
    shutil.copy(here / "clips" / "c[1].wav", clips / "0.wav")
    code, said = to_store(*words, "s3://bucket/again")
    assert code == 0, said
    assert "s3://bucket/again/shard-000000.tar is made again: its inputs changed since" in said
    assert extract(*words, "anew")[0] == 0
    made, anew = stored("s3://bucket/again"), contents(here / "anew")
    assert made.pop("run.json") and anew.pop("run.json") and made == anew


def check_commits(url: str, expected: dict[str, bytes]) -> None:
    """What is committed is whole."""
    left = stored(url)
    for name, data in left.items():
        if "/shard-" in name:
            assert data == expected[name]
            assert name.removesuffix(".json").removesuffix(".tar") + ".tar" in left


@pytest.mark.long
def test_killed_at_random(here: Path, expected: dict[str, bytes], env: dict[str, str]) -> None:
    """Two processes, 20 times."""
    url, draw = "s3://bucket/random", random.Random(1)
    command = [sys.executable, str(PROGRAM), *WORK, "--encoder", "encoder", "--world", "2"]
    kills = 0
    while kills < 20:
        running = [
            subprocess.Popen(
                [*command, "--out", url, "--rank", rank], cwd=here, start_new_session=True,
                env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )
            for rank in "01"
        ]  # fmt: skip
        before = Store(f"{url}/audio").list().keys()
        while Store(f"{url}/audio").list().keys() <= before and running[0].poll() is None:
            time.sleep(0.01)
        time.sleep(draw.random())
        for one in running:
            os.killpg(one.pid, signal.SIGKILL)
            kills += one.wait() == -signal.SIGKILL
        check_commits(url, expected)
        if set(expected) <= set(stored(url)):
            assert stored(url) == expected
            for name in expected:
                Store(url).delete(name)
    last = [subprocess.Popen([*command, "--out", url, "--rank", r], cwd=here) for r in "01"]
    assert [one.wait() for one in last] == [0, 0]
    assert stored(url) == expected and staged() == [".lock"]
