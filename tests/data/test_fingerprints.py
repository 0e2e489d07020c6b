"""A file replaced under its name is noticed at the next start; one that is the same is not."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from mmembed.commands.cli import run_program
from mmembed.commands.prepare import main
from mmembed.data.feature_files import write_features
from mmembed.data.fingerprints import Fingerprints, changed_inputs
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance, portable_key
from mmembed.data.media.load import MediaSource
from mmembed.data.shards.layout import Record, shard_path, write_shard

Log = pytest.LogCaptureFixture
Replace = Callable[[Path], None]


def sound(path: Path, level: float, seconds: float = 0.3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = np.sin(np.arange(round(16_000 * seconds)) / 7)
    soundfile.write(path, level * tone, 16_000)
    return path


def same_times(path: Path, others: Path) -> None:
    times = others.stat()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def source(media: str, folder: Path, key: str | None = None) -> MediaSource:
    return MediaSource(Utterance(key or portable_key(media), media), folder)


def committed(folder: Path, inputs: list[MediaSource]) -> Path:
    tar, prints = shard_path(folder, 0), Fingerprints()
    prints.take(inputs)
    write_shard(tar, [Record("k", {"json": {}})], {"fingerprints": prints.digests})
    prints.keep(tar)
    return tar


def test_bytes_decide_where_size_or_times_differ(tmp_path: Path) -> None:
    a, b = sound(tmp_path / "a" / "x.wav", 0.1), sound(tmp_path / "b" / "x.wav", 0.2)
    media = {"a": "a/x.wav", "b": "b/x.wav", "gone": "none.wav"}
    inputs = [source(name, tmp_path, key) for key, name in media.items()]
    tar = committed(tmp_path / "out", inputs)
    assert changed_inputs(tar, inputs) == []

    os.utime(a)
    shutil.copy2(b, tmp_path / "copy.wav")
    (tmp_path / "copy.wav").replace(b)  # the same bytes in another file
    assert changed_inputs(tar, inputs) == []
    seen = json.loads((tar.parent / ".shard-000000.seen").read_text())
    assert seen["a"][1] == a.stat().st_mtime_ns  # noted: it is not read again

    for x, y in (("a", "swap"), ("b", "a"), ("swap", "b")):  # folders that change places
        (tmp_path / x).rename(tmp_path / y)
    same_times(tmp_path / "a" / "x.wav", tmp_path / "b" / "x.wav")
    assert a.stat().st_size == b.stat().st_size
    assert a.stat().st_mtime_ns == b.stat().st_mtime_ns
    assert changed_inputs(tar, inputs) == ["a/x.wav", "b/x.wav"]
    (tar.parent / ".shard-000000.seen").unlink()
    assert changed_inputs(tar, inputs) == ["a/x.wav", "b/x.wav"]

    a.unlink()  # a shard outlives what it was made of
    assert changed_inputs(tar, inputs) == ["b/x.wav"]
    sound(tmp_path / "none.wav", 0.3)
    assert changed_inputs(tar, inputs) == ["b/x.wav", "none.wav"]


def test_members_of_archives_and_rows_of_features_are_told_apart(tmp_path: Path) -> None:
    def archive(*levels: float) -> None:
        with tarfile.open(tmp_path / "all.tar", "w") as tar:
            for number, level in enumerate(levels):
                tar.add(sound(tmp_path / f"{number}.wav", level), f"{number}.wav")

    def rows(*values: float) -> None:
        held = [{"audio": np.full((2, 3), value, np.float32)} for value in values]
        write_features(tmp_path / "f.safetensors", held)

    archive(0.1, 0.2)
    rows(1, 2)
    inputs = [
        source(f"{file}#{name}", tmp_path)
        for file, names in (("all.tar", ("0.wav", "1.wav")), ("f.safetensors", ("0", "1")))
        for name in names
    ]
    tar = committed(tmp_path / "out", inputs)
    archive(0.1, 0.2)
    rows(1, 2)
    assert changed_inputs(tar, inputs) == []
    archive(0.1, 0.3)
    rows(4, 2)
    assert changed_inputs(tar, inputs) == ["all.tar#1.wav", "f.safetensors#0"]


def test_what_a_server_says_of_a_file_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path / "cache"))
    files = fsspec.filesystem("memory")
    files.pipe("/prints/x.wav", b"one")
    inputs = [source("memory://prints/x.wav", tmp_path)]
    tar = committed(tmp_path / "out", inputs)
    assert changed_inputs(tar, inputs) == []
    files.pipe("/prints/x.wav", b"longer")
    assert changed_inputs(tar, inputs) == ["memory://prints/x.wav"]
    files.rm("/prints/x.wav")
    assert changed_inputs(tar, inputs) == []


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.wav")
    (tmp_path / "folder.wav").mkdir()
    inputs = [source(name, tmp_path) for name in ("fifo.wav", "folder.wav", "x" * 300)]
    tar = committed(tmp_path / "out", inputs)
    assert changed_inputs(tar, inputs) == []
    write_shard(tar, [], {})  # of an older version
    assert changed_inputs(tar, inputs) == []


def prepare(folder: Path, out: Path) -> int:
    arguments = ["manifest", folder / "m.jsonl", "--out", out, "--records-per-shard", "2"]
    return run_program(main, [str(x) for x in [*arguments, "--error-budget", "1"]])


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "shards").glob("[!.]*")}


def test_prepare_makes_the_shard_of_a_replaced_file_again(tmp_path: Path, caplog: Log) -> None:
    corpus, out = tmp_path / "corpus", tmp_path / "out"
    for number in range(4):
        sound(corpus / f"{number}.wav", 0.1 * number)
    names = [*(f"{n}.wav" for n in range(4)), "late.wav"]
    write_manifest(corpus / "m.jsonl", [Utterance(f"k{n}", name) for n, name in enumerate(names)])
    assert prepare(corpus, out) == 0
    first = shards(out)
    untouched = shard_path(out / "shards", 0).stat().st_mtime_ns

    os.utime(corpus / "3.wav")
    assert prepare(corpus, out) == 0
    assert shards(out) == first and not caplog.text

    sound(corpus / "3.wav", 0.9)
    sound(corpus / "late.wav", 0.4)
    assert prepare(corpus, out) == 0
    assert "shard-000001.tar is made again: 1 of its inputs changed since (3.wav)" in caplog.text
    assert "shard-000002.tar is made again: 1 of its inputs changed since (late.wav)" in caplog.text
    second = shards(out)
    assert shard_path(out / "shards", 0).stat().st_mtime_ns == untouched
    changed = {name for name in second if first.get(name) != second[name]}
    assert {"shard-000001.tar", "shard-000002.tar", "failed.jsonl"} <= changed
    assert "shard-000000.tar" not in changed

    fresh, copy = tmp_path / "fresh", tmp_path / "copy"
    shutil.copytree(corpus, copy)  # with other times
    assert prepare(copy, fresh) == 0
    assert shards(fresh) == second
