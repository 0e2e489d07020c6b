"""Preparation: a fixed plan, whoever makes it and however often it is interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.loading import load_example

from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.prepare import prepare_shards
from mmembed.data.shards.layout import ShardSet, shard_path
from mmembed.data.shards.records import from_record
from mmembed.errors import BudgetError, DataError, UsageError
from mmembed.io.ranks import Rank

SAMPLE_RATE = 16_000


def make_corpus(folder: Path, count: int, seconds: float = 0.3) -> list[Utterance]:
    """Tones of rising pitch, each with a word."""
    folder.mkdir(parents=True, exist_ok=True)
    time_axis = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    utterances = []
    for number in range(count):
        tone = 0.3 * np.sin(2 * np.pi * (200 + 20 * number) * time_axis)
        soundfile.write(folder / f"{number}.wav", tone, SAMPLE_RATE)
        utterances.append(
            Utterance(f"tone-{number}", f"{number}.wav", transcript=f"word {number}", speaker="s")
        )
    return utterances


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_records_are_the_examples_in_order(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 5)
    seen: list[int] = []
    failures = prepare_shards(
        corpus, tmp_path, tmp_path / "out", records_per_shard=2, on_progress=seen.append
    )
    assert (failures, seen) == ((), [1, 2, 3, 4, 5])
    shards = ShardSet(tmp_path / "out")
    assert shards.keys == tuple(utterance.key for utterance in corpus)
    assert shards.manifest["utterances"] == 5
    for index, utterance in enumerate(corpus):
        record = shards.read(index)
        example = from_record(record.key, record.members)
        expected = load_example(utterance, tmp_path)
        assert (example.utterance, example.text) == (utterance, expected.text)
        assert expected.audio is not None
        np.testing.assert_array_equal(example.audio, expected.audio)
    assert len(list((tmp_path / "out").glob("shard-*.tar"))) == 3


def test_only_missing_shards_are_made_again(tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path, 4), tmp_path / "out"
    prepare_shards(corpus, tmp_path, out, records_per_shard=1)
    before = files(out)
    shard_path(out, 1).with_suffix(".json").unlink()  # never committed
    shard_path(out, 2).write_bytes(b"cut")  # damaged
    untouched = shard_path(out, 0).stat().st_mtime_ns
    prepare_shards(corpus, tmp_path, out, records_per_shard=1)
    assert files(out) == before
    assert shard_path(out, 0).stat().st_mtime_ns == untouched


def test_failures_are_listed_and_left_out(tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path, 5), tmp_path / "out"
    (tmp_path / "1.wav").write_bytes(b"")
    (tmp_path / "4.wav").unlink()
    failures = prepare_shards(corpus, tmp_path, out, records_per_shard=2, error_budget=0.4)
    assert failures is not None and len(ShardSet(out)) == 3
    listed = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    assert listed == list(failures)
    assert [(f["key"], f["reason"]) for f in listed] == [
        ("tone-1", "empty"),
        ("tone-4", "missing"),
    ]
    assert ShardSet(out).keys == ("tone-0", "tone-2", "tone-3")
    with pytest.raises(BudgetError, match="2 of 5"):
        prepare_shards(corpus, tmp_path, out, records_per_shard=2, error_budget=0.39)


def test_only_asked_streams_are_kept(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 2)
    prepare_shards(corpus, tmp_path, tmp_path / "text", streams=("text",))
    assert list(ShardSet(tmp_path / "text").read(0).members) == ["json"]
    with pytest.raises(BudgetError):
        prepare_shards(corpus, tmp_path, tmp_path / "video", streams=("video",))
    assert "holds no video" in (tmp_path / "video" / "failed.jsonl").read_text()


def test_a_folder_of_another_plan_is_refused(tmp_path: Path) -> None:
    corpus, out = make_corpus(tmp_path, 3), tmp_path / "out"
    prepare_shards(corpus, tmp_path, out, records_per_shard=1)
    before = files(out)
    for other, size in ((corpus[::-1], 1), (corpus, 2), (corpus[:2], 1)):
        with pytest.raises(UsageError, match="other utterances"):
            prepare_shards(other, tmp_path, out, records_per_shard=size)
    with pytest.raises(UsageError, match="other utterances, streams or crops"):
        prepare_shards(corpus, tmp_path, out, records_per_shard=1, streams=("audio", "text"))
    assert files(out) == before


def test_bad_lists_are_refused(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path, 1)
    with pytest.raises(DataError, match="tone-0"):
        prepare_shards(corpus * 2, tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="no utterances"):
        prepare_shards([], tmp_path, tmp_path / "out")


PROGRAM = """
import sys
from pathlib import Path
from mmembed.data.manifest.jsonl import read_manifest
from mmembed.data.prepare import prepare_shards
from mmembed.io.ranks import Rank

if __name__ == "__main__":
    folder, out = map(Path, sys.argv[1:3])
    part = Rank(*map(int, sys.argv[3:]))
    rows = read_manifest(folder / "manifest.jsonl")
    prepare_shards(rows, folder, out, workers=2, records_per_shard=5, part=part)
"""


def test_killed_and_run_again_gives_the_same_bytes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 60, seconds=4)
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", corpus)
    (tmp_path / "program.py").write_text(PROGRAM)
    out = tmp_path / "killed"
    arguments = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "corpus"), str(out)]
    with subprocess.Popen(arguments) as program:
        wait_until(lambda: any(out.glob("shard-*.json")))
        children = Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()
        program.send_signal(signal.SIGKILL)
    assert children
    wait_until(lambda: not any(map(is_alive, children)))
    assert not (out / "manifest.json").exists()
    undisturbed = tmp_path / "undisturbed"
    for folder in (out, undisturbed):
        prepare_shards(corpus, tmp_path / "corpus", folder, records_per_shard=5)
    assert files(out) == files(undisturbed)


@pytest.mark.long
def test_two_ranks_killed_ten_times_give_the_same_bytes(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 600, seconds=4)
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", corpus)
    (tmp_path / "program.py").write_text(PROGRAM)
    out, draw = tmp_path / "killed", np.random.default_rng(0)
    program = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "corpus"), str(out)]
    made = [0]
    for _ in range(10):
        ranks = [subprocess.Popen([*program, str(rank), "2"]) for rank in range(2)]
        wait_until(lambda: len(list(out.glob("shard-*.json"))) > made[-1])
        time.sleep(draw.uniform(0, 0.3))
        for rank in ranks:
            rank.kill()
            rank.wait()
        made.append(len(list(out.glob("shard-*.json"))))
        assert len(ShardSet(out)) == 5 * made[-1]  # what is there is whole
    assert made[-1] < 120 and not (out / "manifest.json").exists()
    undisturbed = tmp_path / "undisturbed"
    for folder in (out, undisturbed):
        prepare_shards(corpus, tmp_path / "corpus", folder, records_per_shard=5)
    assert visible(out) == visible(undisturbed)
    print(f"shards after each of ten kills: {made[1:]}")


def visible(folder: Path) -> dict[str, bytes]:
    """Files but for the marks of ranks, which stay empty."""
    return {name: data for name, data in files(folder).items() if not name.startswith(".")}


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_parts_make_the_bytes_of_one(tmp_path: Path) -> None:
    corpus, one, two = make_corpus(tmp_path, 7), tmp_path / "one", tmp_path / "two"
    (tmp_path / "3.wav").write_bytes(b"broken")
    how = {"records_per_shard": 2, "workers": 1, "error_budget": 0.5}
    prepare_shards(corpus, tmp_path, one, **how)  # type: ignore[arg-type]
    ends = [
        prepare_shards(corpus, tmp_path, two, part=Rank(rank, 3), **how)  # type: ignore[arg-type]
        for rank in (2, 0, 1)
    ]
    assert ends[:2] == [None, None] and [failure["key"] for failure in ends[2] or ()] == ["tone-3"]
    assert len(ShardSet(two)) == 6
    assert files(one) == files(two)


def test_ranks_are_within_the_world() -> None:
    for rank, world in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(UsageError, match="ranks are 0 to"):
            Rank(rank, world)


def test_other_features_are_other_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, out = make_corpus(tmp_path, 1), tmp_path / "out"
    prepare_shards(corpus, tmp_path, out, workers=1)
    monkeypatch.setattr("mmembed.data.prepare._code", lambda: "changed")
    with pytest.raises(UsageError, match="features of another version"):
        prepare_shards(corpus, tmp_path, out, workers=1)
