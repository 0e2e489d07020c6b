"""One walk for all commands: suffixes in any case, links once, what is passed over is named."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mmembed.commands.cli import run_program
from mmembed.commands.prepare import main
from mmembed.data.checks import collect_skipped
from mmembed.data.corpora import CORPORA
from mmembed.data.folders import MEDIA_SUFFIXES, PassedOver, walk
from mmembed.data.inputs import expand_inputs, open_sources
from mmembed.data.manifest.jsonl import read_manifest
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import DataError

Log = pytest.LogCaptureFixture


def plant(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_each_folder_is_read_once_wherever_links_lead(tmp_path: Path) -> None:
    root = tmp_path / "root"
    plant(root, "b/real.wav", ".store/kept.wav", "c/x.wav")
    plant(tmp_path, "far/1.wav", "far/deep/2.wav", "far/deep/.3.wav")
    links = {
        "a": "b",  # read as b
        "b/loop": "..",
        "c/up": "../..",  # all of it lies there
        "d": "../far/deep",
        "e": "../far",  # all but deep, which d has led to
        "f": ".store",  # hidden, so not read elsewhere
        "self": "self",
        "gone.wav": "nowhere.wav",
        "same.wav": "c/x.wav",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    passed = PassedOver()
    found = list(walk(root, passed))
    assert found == [
        "b/real.wav", "c/x.wav", "d/2.wav", "e/1.wav", "f/kept.wav", "gone.wav", "same.wav", "self",
    ]  # fmt: skip
    assert passed.links == ["a/", "b/loop/", "c/up/", "e/deep/"]
    assert passed.hidden == [".store", "d/.3.wav"]


def test_extract_and_prepare_see_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Log
) -> None:
    monkeypatch.chdir(tmp_path)
    plant(Path("far"), "b.wav", ".DS_Store")
    plant(Path("in"), "a.TS", "b.wma", "c.aiff", "d.WAV", "e.pdf", "f", "__MACOSX/._d.WAV")
    Path("in/linked").symlink_to("../far")
    media = ["a.TS", "b.wma", "c.aiff", "d.WAV", "linked/b.wav"]
    assert [s.name for s in open_sources(["in"])] == [f"in/{name}" for name in media]
    line = "in: passed over 1 .pdf, 2 hidden, 1 without suffix (4, such as 'e.pdf')"
    assert line in caplog.text
    caplog.clear()
    assert [row.media for row in CORPORA["clips"](Path("in"))] == media
    assert line in caplog.text


def test_a_list_may_come_from_anywhere() -> None:
    assert expand_inputs(["-"], ["\ufeffa.wav\r\n", "\r\n", "b .wav"]) == ["a.wav", "b .wav"]


def test_wildcards_meet_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plant(Path("in"), "a.wav", "deep/b.wav")
    Path("in/deep/loop").symlink_to("..")
    assert expand_inputs(["in/**/*.wav"]) == ["in/a.wav", "in/deep/b.wav"]


def test_corpora_take_suffixes_of_any_size_and_name_what_they_leave_out(
    tmp_path: Path, caplog: Log
) -> None:
    stem = "03-01-05-01-02-01"
    plant(tmp_path, f"Actor_01/{stem}-01.wav", f"Actor_02/{stem}-02.WAV", "Actor_03/take 3.Mp3")
    plant(tmp_path, "Actor_04/01-01-05-01-02-01-04.MP4", f"Actor_04/{stem}-04.wav", "readme.txt")
    with collect_skipped() as skipped:
        rows = CORPORA["ravdess"](tmp_path)
    assert [Path(row.media or "").name for row in rows] == [
        f"{stem}-01.wav", f"{stem}-02.WAV", "01-01-05-01-02-01-04.MP4",
    ]  # fmt: skip
    assert f"{tmp_path}: passed over 1 .Mp3 (1, such as 'Actor_03/take 3.Mp3')" in caplog.text
    assert [check.items for check in skipped] == [
        ("Actor_03/take 3.Mp3",), (f"Actor_04/{stem}-04.wav",),
    ]  # fmt: skip


def test_files_that_collide_are_named(tmp_path: Path, caplog: Log) -> None:
    plant(tmp_path, "a.wav", "a.mp4", "b.wav", "b.WAV", "B.wav")
    rows = CORPORA["clips"](tmp_path)
    assert [row.media for row in rows] == ["B.wav", "a.mp4", "b.WAV"]
    assert "in a better form and are left out (1, such as 'a.wav')" in caplog.text
    assert "more than once and are left out (1, such as 'b.wav')" in caplog.text
    plant(tmp_path / "emodb", "1/03a01Fa.wav", "2/03a01Fa.WAV")
    assert run("emodb", tmp_path / "emodb", "--out", tmp_path / "out") == 4
    assert not (tmp_path / "out" / "shards").exists()


def test_suffixes_are_listed_once_and_small() -> None:
    assert len(set(MEDIA_SUFFIXES)) == len(MEDIA_SUFFIXES)
    assert all(suffix == suffix.lower() for suffix in MEDIA_SUFFIXES)
    assert {".ts", ".m2ts", ".wma", ".wmv", ".aiff", ".au", ".caf", ".w64", ".aac"} <= {
        *MEDIA_SUFFIXES
    }


def run(*arguments: object) -> int:
    return run_program(main, [str(x) for x in arguments])


def test_a_name_that_is_no_text_is_a_row_like_any_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in" / os.fsdecode(b"\xfcber")
    folder.mkdir(parents=True)
    soundfile.write(tmp_path / "zeros.wav", np.zeros(8000), 16_000)
    for name in (b"plain.wav", b"caf\xe9.wav"):
        shutil.copy(tmp_path / "zeros.wav", folder / os.fsdecode(name))
    (folder / "notes.pdf").touch()
    out = tmp_path / "out"
    for _ in range(2):
        assert run("clips", tmp_path / "in", "--out", out) == 0
    keys = ("in-%FCber%2Fcaf%E9", "in-%FCber%2Fplain")
    assert ShardSet(out / "shards").keys == keys
    rows = read_manifest(out / "manifest.jsonl")
    assert [row.speaker for row in rows] == ["in-%FCber"] * 2
    assert os.fsencode(rows[0].media or "").endswith(b"\xfcber/caf\xe9.wav")
    checks = json.loads((out / "integrity.json").read_text())
    assert [check["items"] for check in checks] == [["%FCber/notes.pdf"]]
    assert "Traceback" not in capsys.readouterr().err


def test_a_corpus_of_which_nothing_can_be_used_is_an_error(tmp_path: Path) -> None:
    plant(tmp_path / "songs", "03-02-05-01-02-01-01.wav")  # RAVDESS' songs are left out
    assert run("ravdess", tmp_path / "songs", "--out", tmp_path / "out") == 4
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no file of clips"):
        CORPORA["clips"](tmp_path / "none")
