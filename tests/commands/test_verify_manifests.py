"""`mmembed verify` on manifests: every kind of defect planted once and found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.prepared import reasons, verify

from mmembed.data.feature_files import write_features
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance

Capture = pytest.CaptureFixture[str]


def sound(path: Path) -> str:
    soundfile.write(path, np.zeros(8000), 16_000)
    return path.name


def test_a_manifest_of_usable_media_is_one_line(tmp_path: Path, capsys: Capture) -> None:
    write_features(tmp_path / "f.safetensors", [{"audio": np.zeros((2, 3), np.float32)}])
    (tmp_path / "videos.tar").write_bytes(b"")
    rows = [
        Utterance("a", sound(tmp_path / "a.wav"), start=0.1, end=0.4),
        Utterance("b", "a.wav", end=0.2),
        Utterance("c", None, transcript="Words."),
        Utterance("d", "f.safetensors#0"),
        Utterance("e", "s3://bucket/e.mp4"),
        Utterance("f", "videos.tar#f.mp4"),
    ]
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, rows)
    assert verify(path) == 0
    note = "the media of 2 are remote or in archives: not looked at"
    assert capsys.readouterr().out == f"ok       {path}: 6 rows, {note}\n"


@pytest.mark.parametrize(
    ("line", "found", "message"),
    [
        ('{"key": "b"', "manifest", "Expecting"),
        ('{"key": "b", "medai": "a.wav"}', "manifest", "unknown field medai"),
        ('{"key": "b", "start": 3, "end": 2, "media": "a.wav"}', "manifest", "0 <= start < end"),
        ('{"key": "b", "end": Infinity, "media": "a.wav"}', "manifest", "end must be a number"),
        ('{"key": "b", "end": 301, "media": "a.wav"}', "too_long", "up to 300 s"),
        ('{"key": "a", "media": "a.wav"}', "duplicate", "manifest.jsonl:1 too"),
        ('{"key": "\u00fc", "media": "a.wav"}', "key", "not portable"),
        ('{"key": "b", "media": "none.wav"}', "missing", "none.wav: no such file"),
        ('{"key": "b", "media": "empty.wav"}', "empty", "empty.wav: the file is empty"),
        ('{"key": "b", "media": "list.wav"}', "not_media", "list.wav: not a media file"),
        ('{"key": "b", "media": "none.tar#b.mp4"}', "missing", "no such archive"),
        ('{"key": "b", "media": "f.safetensors#1"}', "missing", "f.safetensors#1: no such row"),
        ('{"key": "b", "media": "f.safetensors#x"}', "media", "a row number"),
        ('{"key": "b", "media": "f.safetensors#0"}', "not_finite", "audio holds 1 of 6 values"),
        ('{"key": "b", "transcript": "..."}', "no_streams", "neither media nor words"),
    ],
)
def test_rows_that_cannot_be_used_are_found(
    tmp_path: Path, capsys: Capture, line: str, found: str, message: str
) -> None:
    sound(tmp_path / "a.wav")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "list.wav").write_text("#EXTM3U\nsecret.wav\n")
    spoilt_row = np.array([[0, 0, 0], [0, -np.inf, 0]], np.float32)
    write_features(tmp_path / "f.safetensors", [{"audio": spoilt_row}])
    path = tmp_path / "manifest.jsonl"
    path.write_text('{"key": "a", "media": "a.wav"}\n\n' + line + "\n", encoding="utf-8")
    assert verify(path) == 4
    printed = capsys.readouterr().out
    assert reasons(printed) == [found]
    assert message in printed
    assert f"{path}:3" in printed or found == "key"


def test_all_rows_are_told_and_a_file_once(tmp_path: Path, capsys: Capture) -> None:
    rows = [Utterance(f"k{n}", "none.wav", start=n) for n in range(3)]
    rows += [Utterance(f"l{n}", f"none.tar#{n}.mp4") for n in range(2)]
    write_manifest(tmp_path / "m.jsonl", rows)
    for arguments in ([], ["--decode"]):
        assert verify(tmp_path / "m.jsonl", *arguments) == 4
        printed = capsys.readouterr().out
        assert reasons(printed) == ["missing", "missing"]
        assert "m.jsonl:1: " in printed and "m.jsonl:4: " in printed


def test_an_empty_manifest_is_invalid(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "m.jsonl").write_text("\n")
    assert verify(tmp_path / "m.jsonl") == 4
    assert reasons(capsys.readouterr().out) == ["empty"]


def test_damage_behind_good_first_bytes_needs_decoding(tmp_path: Path, capsys: Capture) -> None:
    sound(tmp_path / "a.flac")
    whole = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "b.flac").write_bytes(whole[:60])
    path = tmp_path / "m.jsonl"
    write_manifest(path, [Utterance("a", "a.flac"), Utterance("b", "b.flac")])
    assert verify(path) == 0
    capsys.readouterr()
    assert verify(path, "--decode") == 4
    assert reasons(capsys.readouterr().out) == ["damaged"]
