"""prepare and extract stopped at each of their writes: one line, nothing lost, nothing changed."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from helpers.clips import tone
from helpers.encoders import write_encoder
from helpers.extracting import contents
from helpers.prepared import example, write_prepared
from mmembed_export.extract import main as extract

from mmembed.commands.cli import run_program
from mmembed.commands.prepare import main as prepare
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import shard_sidecars
from mmembed.io.locks import finishing

Program = Callable[..., int]


def disk_full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device", "the disk")


FAULTS: list[tuple[Callable[[], None], int, str]] = [
    (disk_full, 74, "error: [Errno 28] No space left on device: 'the disk'; free some space"),
    (lambda: os.kill(os.getpid(), signal.SIGTERM), 75, "error: stopped by SIGTERM; the same"),
    (lambda: os.kill(os.getpid(), signal.SIGINT), 130, "error: interrupted"),
    (lambda: os.kill(os.getpid(), signal.SIGUSR1), 75, "error: stopped by SIGUSR1; the same"),
]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Program]:
    folder = tmp_path_factory.mktemp("interrupted")
    write_encoder(folder / "encoder")
    write_prepared(folder / "corpus", [example(n) for n in range(3)])
    soundfile.write(folder / "a.wav", tone(0.3), 16_000)
    rows = [Utterance("lost", "lost.wav"), Utterance("sound", "a.wav", transcript="one")]
    write_manifest(folder / "rows.jsonl", [*rows, Utterance("text", None, transcript="two")])

    def extract_to(out: Path, *more: str) -> int:
        words = [str(folder / "corpus" / "shards"), "--encoder", str(folder / "encoder")]
        words += ["--out", str(out), "--records-per-shard", "2", "--streams", "audio"]
        return run_program(extract, [*words, "--format", "npy", "parquet", *more])

    def prepare_to(out: Path, *more: str) -> int:
        words = ["manifest", str(folder / "rows.jsonl"), "--out", str(out), "--workers", "1"]
        return run_program(
            prepare, [*words, "--records-per-shard", "2", "--error-budget", "1", *more]
        )

    return {"extract": extract_to, "prepare": prepare_to}


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["prepare", "extract"])
def test_stopped_at_each_write(
    programs: dict[str, Program],
    name: str,
    every: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, sync = programs[name], os.fsync
    writes, fault, at = 0, disk_full, 0

    def counted(descriptor: int) -> None:
        nonlocal writes
        writes += 1
        sync(descriptor)
        if writes == at:
            fault()

    monkeypatch.setattr(os, "fsync", counted)
    assert run(tmp_path / "calm") == 0
    expected, total, out = contents(tmp_path / "calm"), writes, tmp_path / "out"
    assert total > 10
    tried = 0
    for at in range(1, total + 1, every):  # noqa: B007
        for fault, code, line in FAULTS if every == 1 else [FAULTS[tried % len(FAULTS)]]:  # noqa: B007
            writes, tried = 0, tried + 1
            capsys.readouterr()
            assert run(out) == code
            said = capsys.readouterr().err
            assert said.splitlines()[-1].startswith(line) and "Traceback" not in said
            left = contents(out)
            assert not [path for path in left if path.endswith(".tmp")]
            assert {path: expected[path] for path in left} == left
            writes = total  # no fault
            assert run(out) == 0
            assert contents(out) == expected
            shutil.rmtree(out)


@pytest.mark.parametrize("name", ["prepare", "extract"])
def test_a_rank_leaves_the_end_to_the_one_that_is_at_it(
    programs: dict[str, Program], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However long that takes; where it is killed, the next start finishes."""
    run, out = programs[name], tmp_path / "out"
    place = out / "shards" if name == "prepare" else out
    assert run(tmp_path / "calm") == 0
    place.mkdir(parents=True)
    with finishing(place):
        assert run(out, "--rank", "1", "--world", "2") == 0
        assert not (place / "manifest.json").exists()
        for rank in ("0", "1"):
            capsys.readouterr()
            assert run(out, "--rank", rank, "--world", "2") == 0
            said = capsys.readouterr().out
            assert f"rank {rank} of 2 has made its shards; other ranks are at work" in said
            assert not (place / "manifest.json").exists()
    assert run(out, "--rank", "1", "--world", "2") == 0
    assert contents(out) == contents(tmp_path / "calm")


@pytest.mark.long
def test_a_signal_to_all_processes_loses_no_clip(tmp_path: Path) -> None:
    """As a scheduler sends it: those that decode get it too."""
    rows = [Utterance(f"tone-{n}", "a.wav", start=n / 10, end=n / 10 + 2) for n in range(400)]
    soundfile.write(tmp_path / "a.wav", tone(43), 16_000)
    write_manifest(tmp_path / "rows.jsonl", rows)
    program = [sys.executable, "-m", "mmembed.commands.cli", "prepare", "manifest", "rows.jsonl"]
    out = tmp_path / "out" / "shards"
    with subprocess.Popen(
        [*program, "--out", "out", "--records-per-shard", "10"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    ) as running:  # fmt: skip
        while not (made := list(out.glob("shard-*.json"))) and running.poll() is None:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGTERM)
        _, said = running.communicate(timeout=120)
    assert made and running.returncode == 75, said
    assert said.decode().splitlines()[-1].startswith("error: stopped by SIGTERM")
    assert b"Traceback" not in said and not list(out.glob(".*.tmp"))
    assert len(list(out.glob("shard-*.json"))) < 40
    assert [
        failure for made in shard_sidecars(out) for failure in made["provenance"]["failed"]
    ] == []
