"""What a user names, as clips with keys that never collide."""

from __future__ import annotations

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile

from mmembed.data.example import Example
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.pool import Decoder
from mmembed.data.shards.layout import Record, write_shard
from mmembed.data.shards.records import to_record
from mmembed.errors import DataError, UsageError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; holds clips with equal names in happy/ and sad/."""
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for name in ("happy/1.wav", "happy/1.flac", "sad/deep/1.WAV", "sad/1.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(name, np.zeros(1600), 16_000)
    (tmp_path / "sad" / "notes.txt").write_text("no clip")
    return tmp_path


def test_equal_names_in_folders_have_different_keys(here: Path) -> None:
    sources = open_sources([Path("happy"), Path("sad")])
    assert [source.name for source in sources] == [
        "happy/1.flac", "happy/1.wav", "sad/1.wav", "sad/deep/1.WAV",
    ]  # fmt: skip
    assert sources[3].key == "sad%2Fdeep%2F1%2EWAV"
    assert len({source.key for source in sources}) == 4
    with Decoder() as decoder:
        for source, example in zip(sources, decoder.load(sources), strict=True):
            assert isinstance(example, Example) and example.key == source.key


def test_keys_do_not_depend_on_how_a_clip_was_reached(here: Path) -> None:
    in_folder = {source.key for source in open_sources([Path("happy")])}
    assert in_folder == {s.key for s in open_sources([Path("happy/1.wav"), Path("./happy/1.flac")])}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_manifests_and_shards_keep_their_keys(here: Path, name: str) -> None:
    rows = [Utterance("b", "happy/1.wav"), Utterance("a", None, transcript="Hello")]
    write_manifest(here / name, rows)
    text = Example(Utterance("c", None, transcript="Hi"), text="hi")
    write_shard(here / "shards" / "shard-000000.tar", [Record(*to_record(text))], {})
    sources = open_sources([Path(name), Path("shards")])
    assert [source.key for source in sources] == ["b", "a", "c"]
    with Decoder() as decoder:
        examples = list(decoder.load(sources))
    assert [e.streams for e in examples if isinstance(e, Example)] == [
        ("audio",), ("text",), ("text",),
    ]  # fmt: skip


def test_shards_behind_a_url(here: Path) -> None:
    text = Example(Utterance("c", None, transcript="Hi"), text="hi")
    write_shard(here / "shards" / "shard-000000.tar", [Record(*to_record(text))], {})
    fsspec.filesystem("memory").put(str(here / "shards"), "/elsewhere", recursive=True)
    (source,) = sources = open_sources([Path("memory://elsewhere")])
    assert source.key == "c"
    with Decoder() as decoder:
        assert isinstance(next(decoder.load(sources)), Example)
    with pytest.raises(UsageError, match="pipe:"):
        open_sources([Path("pipe:cat happy/1.wav")])
    (here / "happy" / "1.wav").rename("pipe:1.wav")
    assert open_sources([Path("pipe:1.wav")])[0].key == "pipe%3A1%2Ewav"


def test_what_cannot_be_read_is_known_when_it_is_loaded(here: Path) -> None:
    (here / "empty.mp4").touch()
    write_manifest(here / "rows.jsonl", [Utterance("a", "gone.wav")])
    with Decoder() as decoder:
        sources = open_sources(map(Path, ["lost.mp4", "empty.mp4", "rows.jsonl"]))
        found = list(decoder.load(sources))
    assert [(error.reason, str(error)) for error in found if isinstance(error, DataError)] == [
        ("missing", "lost.mp4: no such file"),
        ("empty", "empty.mp4: the file is empty"),
        ("missing", "a: gone.wav: no such file"),
    ]


def test_names_that_are_no_text_are_read(here: Path) -> None:
    odd = Path(os.fsdecode(b"caf\xe9.wav"))
    (here / "happy" / "1.wav").rename(odd)
    with Decoder() as decoder:
        (example,) = decoder.load(open_sources([odd]))
    assert isinstance(example, Example) and example.key == "caf%E9%2Ewav"


def test_folders_without_clips_and_broken_manifests_are_told(here: Path) -> None:
    (here / "none").mkdir()
    with pytest.raises(UsageError, match="none: holds no clip"):
        open_sources([Path("none")])
    (here / "rows.jsonl").write_text("{not json\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        open_sources([Path("rows.jsonl")])
