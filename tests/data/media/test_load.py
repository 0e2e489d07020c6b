"""Examples from real files, and the round trip through the record of a shard."""

from __future__ import annotations

import json
import os
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from helpers.loading import load_example
from hypothesis import given
from hypothesis import strategies as st

from mmembed.data.example import Example, ExampleInfo
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.data.shards.layout import Record, ShardSet, write_shard
from mmembed.data.shards.records import from_record, to_record
from mmembed.errors import CorruptError, DataError

ROW = Utterance(
    key="s1-0001",
    media="clip.mp4",
    start=0.2,
    end=1.0,
    transcript="Don't STOP, here!",
    language="en",
    speaker="talkers-1",
    split="train",
    labels=Labels(sentiment=1.5, emotions=(2.0, 0.0, 0.0, 1.0, 0.0, 0.0)),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with clip.mp4: 1.2 s of pictures and a tone."""
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=25)
        audio = container.add_stream("aac", rate=16_000, layout="mono")
        assert isinstance(video, av.VideoStream) and isinstance(audio, av.AudioStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for level in range(50, 80):
            picture = np.full((48, 64, 3), level, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        tone = 0.3 * np.sin(np.arange(19_200, dtype=np.float32) / 5)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(audio.encode(frame))
        container.mux(audio.encode(None))
    return tmp_path


def assert_same(one: Example, other: Example) -> None:
    assert one.utterance == other.utterance
    assert one.text == other.text and one.info == other.info
    for a, b in ((one.audio, other.audio), (one.video, other.video)):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_a_row_becomes_features_of_its_part(folder: Path) -> None:
    example = load_example(ROW, folder)
    assert example.audio is not None and example.video is not None
    assert example.audio.shape == (12_800,) and example.audio.dtype == np.int16
    assert example.video.shape == (20, 64, 64) and example.video.dtype == np.uint8
    assert example.text == "don't stop here"
    assert example.info == ExampleInfo(0.8, "full frame")


@pytest.mark.parametrize(
    "streams", [("audio",), ("video",), ("text",), ("audio", "text"), ("video", "text")]
)
def test_wanted_streams_are_those_of_the_whole(folder: Path, streams: tuple[str, ...]) -> None:
    example = load_example(ROW, folder, streams)
    assert example.streams == streams
    whole = load_example(ROW, folder).only(streams)
    for name in streams:
        np.testing.assert_array_equal(getattr(example, name), getattr(whole, name))


def test_text_needs_no_media(tmp_path: Path) -> None:
    assert load_example(Utterance("a", None, transcript="Hello"), tmp_path).streams == ("text",)
    lost = Utterance("a", "lost.mp4", transcript="Hello")
    assert load_example(lost, tmp_path, ("text",)).text == "hello"


def test_rows_without_any_stream_are_named(tmp_path: Path) -> None:
    for row in (Utterance("a", None), Utterance("a", None, transcript=" ")):
        with pytest.raises(DataError, match=r"^a: has no ") as error:
            load_example(row, tmp_path)
        assert error.value.reason == "no_streams"
    with pytest.raises(DataError, match=r"lost\.wav: no such file"):
        load_example(Utterance("a", "lost.wav"), tmp_path)


def test_text_without_a_word_is_an_example_without_a_stream(tmp_path: Path) -> None:
    example = load_example(Utterance("a", None, transcript="?!"), tmp_path)
    assert example.streams == () and example.text is None
    assert from_record(*to_record(example)[:2]).utterance.transcript == "?!"


def test_an_empty_transcript_is_no_text(folder: Path) -> None:
    row = Utterance("a", "clip.mp4", transcript="...")
    assert load_example(row, folder).streams == ("audio", "video")


@given(st.lists(st.text(min_size=1), min_size=2, max_size=2, unique=True))
def test_keys_are_legal_and_differ(names: list[str]) -> None:
    names = [name.encode("utf-8", "replace").decode() for name in names]
    keys = [portable_key(name) for name in names]
    assert (keys[0] == keys[1]) == (names[0] == names[1])
    for key in keys:
        Utterance(key, None)
        assert key.isascii() and key.isprintable()


def test_keys_of_names_that_are_no_text() -> None:
    assert portable_key(os.fsdecode(b"caf\xe9")) == "caf%E9"


def test_a_record_comes_back_from_a_shard(folder: Path) -> None:
    example = load_example(ROW, folder)
    key, members, meta = to_record(example)
    assert set(members) == {"audio.flac", "video.npy", "json"}
    assert meta["lengths"] == {"audio": 12_800, "video": 20, "text": 15}
    assert (meta["speaker"], meta["split"]) == ("talkers-1", "train")
    json.dumps(meta, allow_nan=False)
    write_shard(folder / "shard-000000.tar", [Record(key, members, meta)], {})
    record = ShardSet(folder).read(0)
    assert_same(from_record(record.key, record.members), example)


def test_absent_streams_stay_absent() -> None:
    example = Example(Utterance("a", None, transcript="hi"), text="hi")
    key, members, meta = to_record(example)
    assert set(members) == {"json"}
    assert meta["lengths"] == {"audio": 0, "video": 0, "text": 2}
    assert_same(from_record(key, members), example)


def test_records_of_another_kind_are_refused() -> None:
    with pytest.raises(CorruptError, match=r"^a: not a record of prepared features"):
        from_record("a", {"pooled.npy": np.zeros(3, np.float32)})


def test_media_in_archives_are_those_beside_them(folder: Path) -> None:
    soundfile.write(folder / "sound.wav", np.sin(np.arange(8000) / 9), 16_000)
    names = ["clip.mp4", "sound.wav"]
    with tarfile.open(folder / "all.tar", "w") as tar, zipfile.ZipFile(folder / "a.zip", "w") as z:
        for name in names:
            tar.add(folder / name, f"deep/{name}")
            z.write(folder / name, f"deep/{name}")
    for name in names:
        alone = load_example(replace(ROW, media=name), folder)
        for archive in ("all.tar", "a.zip"):
            packed = load_example(replace(ROW, media=f"{archive}#deep/{name}"), folder)
            assert packed.streams == alone.streams
            np.testing.assert_array_equal(packed.audio, alone.audio)
            if alone.video is not None:
                np.testing.assert_array_equal(packed.video, alone.video)
    with pytest.raises(DataError, match="no such file in the archive"):
        load_example(replace(ROW, media="all.tar#gone.wav"), folder)
