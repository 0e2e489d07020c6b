"""Many broken files in a row: each has a reason, nothing is lost, nobody waits for ever."""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.clips import RATE, grey_steps, tone, write_video

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.load import MediaSource
from mmembed.data.media.pool import Decoder
from mmembed.data.prepare import prepare_shards
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import BudgetError

KINDS = ("mp4", "mkv", "avi", "wav", "flac")
LIMIT = 10.0  # seconds a clip may take


def make(path: Path) -> bytes:
    if path.suffix in (".wav", ".flac"):
        soundfile.write(path, tone(1.0), RATE)
    else:
        write_video(path, grey_steps(range(30, 55)), np.arange(25) / 25, tone(1.0))
    return path.read_bytes()


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.long)])
def test_changed_files_never_take_the_run_down(tmp_path: Path, count: int) -> None:
    whole = {kind: make(tmp_path / f"whole.{kind}") for kind in KINDS}
    rng, names = np.random.default_rng(count), []
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        data = bytearray(whole[kind])
        first, last = (0, 1000) if number % 2 else (len(data) - 2000, len(data))  # mostly headers
        for place in rng.integers(first, last, size=1 + number % 40):
            data[place] = rng.integers(256)
        cut = rng.integers(len(data)) if number % 7 == 0 else None
        names.append(f"{number}.{kind}")
        (tmp_path / names[-1]).write_bytes(data[:cut])
    tasks = [MediaSource(Utterance(str(n), name), tmp_path) for n, name in enumerate(names)]
    times, found = [time.monotonic()], []
    with Decoder(2, seconds=LIMIT) as decoder:
        for outcome in decoder.load(tasks):
            found.append(outcome)
            times.append(time.monotonic())
    assert len(found) == count
    assert max(np.diff(times)) < LIMIT + 5  # nobody overstayed
    reasons = Counter("ok" if isinstance(f, Example) else f.reason for f in found)
    print(dict(reasons), f"longest wait {max(np.diff(times)):.2f} s")
    assert reasons["ok"] > count / 10 and reasons["damaged"] > count / 10


def break_clips(folder: Path, broken: int) -> dict[str, str]:
    """Break the first clips in nine ways; returns what each should be called."""
    video = (folder / "film.mp4").read_bytes()
    sound = (folder / "0.wav").read_bytes()
    ways = {
        "missing": None,
        "empty": b"",
        "not_media": b"#EXTM3U\n0.wav\n",  # a playlist
        "not_media ": b"PK\x03\x04 an archive",
        "damaged": video[: len(video) // 2],
        "damaged ": sound[: len(sound) // 2],
        "damaged  ": sound[:200].replace(b"data", b"tada"),
        "too_short": sound[:44].replace(sound[4:8], (36).to_bytes(4, "little"))[:40] + bytes(4),
        "unreadable": b"folder",
    }
    expected = {}
    for number in range(broken):
        reason, data = list(ways.items())[number % len(ways)]
        path = folder / f"{number}.wav"
        path.unlink(missing_ok=True)
        if reason == "unreadable":
            path.mkdir()
            reason = "not_media"
        elif data is not None:
            path.write_bytes(data)
        expected[f"clip-{number}"] = reason.strip()
    return expected


@pytest.mark.parametrize(
    ("count", "broken"), [(100, 9), pytest.param(1000, 37, marks=pytest.mark.long)]
)
def test_nothing_is_lost_without_a_record(tmp_path: Path, count: int, broken: int) -> None:
    write_video(tmp_path / "film.mp4", grey_steps(range(60, 70)), np.arange(10) / 25, tone(0.4))
    for number in range(count):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.1 + number / count), RATE)
    rows = [Utterance(f"clip-{number}", f"{number}.wav") for number in range(count)]
    expected = break_clips(tmp_path, broken)
    with pytest.raises(BudgetError, match=f"{broken} of {count} utterances failed"):
        prepare_shards(rows, tmp_path, tmp_path / "out", records_per_shard=64)
    listed = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").open()]
    assert {failure["key"]: failure["reason"] for failure in listed} == expected
    kept = ShardSet(tmp_path / "out").keys
    assert len(kept) == count - broken and set(kept).isdisjoint(expected)
    failures = prepare_shards(
        rows, tmp_path, tmp_path / "out", records_per_shard=64, error_budget=0.1
    )
    assert failures is not None and len(kept) + len(failures) == count


@pytest.mark.long
def test_memory_stays_flat(tmp_path: Path) -> None:
    for number in range(50):
        soundfile.write(tmp_path / f"{number}.wav", tone(0.1 + number / 100), RATE)
    peaks = []
    for count in (2_000, 20_000):
        rows = [Utterance(f"clip-{n}", f"{n % 50}.wav", transcript="a") for n in range(count)]
        prepare_shards(rows, tmp_path, tmp_path / f"out-{count}", records_per_shard=512)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
        del rows
    print(f"peak {peaks[0]} MiB after 2,000 utterances, {peaks[1]} MiB after 20,000")
    assert peaks[1] < peaks[0] + 60  # the manifest itself: 3 kB a row
