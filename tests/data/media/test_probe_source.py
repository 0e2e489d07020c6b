"""Probing a clip tells what decoding it tells, or refuses it for the same reason."""

from __future__ import annotations

import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from helpers.clips import grey_steps, tone, write_video
from helpers.loading import load_example
from helpers.prepared import example, write_prepared

from mmembed.data.feature_files import write_features
from mmembed.data.inputs import open_sources
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.load import MediaSource, ProbeResult, probe
from mmembed.data.media.pool import Decoder
from mmembed.errors import CorruptError, DataError


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    grey, times = grey_steps(range(30, 130, 4)), np.arange(25) / 25
    write_video(folder / "film.mp4", grey, times, tone(1.0))
    write_video(folder / "mute.mkv", grey, times)
    for name in ("sound.wav", "sound.flac", "sound.ogg", "sound.mp3"):
        soundfile.write(folder / name, tone(0.7), 16_000)
    (folder / "cut.wav").write_bytes((folder / "sound.wav").read_bytes()[:-99])
    film = (folder / "film.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(film[: len(film) // 2])
    (folder / "text.mp4").write_text("no film " * 99)
    soundfile.write(folder / "hour.flac", np.zeros(310 * 1000, np.float32), 1000)
    with tarfile.open(folder / "media.tar", "w") as tar:
        tar.add(folder / "sound.wav", "inside.wav")
    write_features(folder / "vectors.safetensors", [{"video": np.ones((3, 7), np.float32)}])
    return folder


@pytest.mark.parametrize("media", ["film.mp4", "mute.mkv", "sound.wav", "sound.flac", "sound.ogg",
                                   "sound.mp3", "media.tar#inside.wav"])  # fmt: skip
@pytest.mark.parametrize("span", [(0.0, None), (0.25, 0.5), (0.25, 9.0)])
def test_headers_tell_what_decoding_tells(
    here: Path, media: str, span: tuple[float, float | None]
) -> None:
    row = Utterance("key", media, *span, transcript="Good day")
    found, decoded = probe(MediaSource(row, here)), load_example(row, here)
    assert found.streams == decoded.streams and found.text == "good day"
    assert found.seconds == pytest.approx(decoded.info.seconds, abs=0.08)


@pytest.mark.parametrize(
    "row",
    [
        Utterance("key", "lost.wav"),
        Utterance("key", "text.mp4"),
        Utterance("key", "cut.wav"),
        Utterance("key", "cut.mp4"),
        Utterance("key", "hour.flac"),
        Utterance("key", "sound.wav", 0.8),
        Utterance("key", "media.tar#outside.wav"),
        Utterance("key", "vectors.safetensors#1"),
        Utterance("key", None, transcript="?!"),
    ],
)
def test_both_refuse_for_the_same_reason(here: Path, row: Utterance) -> None:
    streams = ("audio", "video") if row.media is None else ("audio", "video", "text")
    reasons = []
    source = MediaSource(row, here, streams)
    for read in (probe, MediaSource.load):
        with pytest.raises(DataError) as refused:
            read(source)
        reasons.append(refused.value.reason)
    assert reasons[0] == reasons[1]


def test_streams_that_nobody_wants_are_not_told(here: Path) -> None:
    film = MediaSource(Utterance("key", "film.mp4"), here, ("video",))
    assert probe(film).streams == ("video",)
    with pytest.raises(DataError, match=r"mute\.mkv: holds no audio"):
        probe(MediaSource(Utterance("key", "mute.mkv"), here, ("audio",)))


def test_features_and_texts_need_no_header(here: Path) -> None:
    vectors = MediaSource(Utterance("key", "vectors.safetensors#0"), here)
    assert probe(vectors) == ProbeResult(("video",), None, None)
    words = MediaSource(Utterance("key", None, transcript="Hi"), here)
    assert probe(words) == ProbeResult(("text",), None, "hi")


def test_of_a_url_the_first_bytes_are_enough(here: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path))
    fsspec.filesystem("memory").put(str(here / "sound.wav"), "/heads/sound.wav")
    fsspec.filesystem("memory").put(str(here / "text.mp4"), "/heads/text.mp4")
    sound = MediaSource(Utterance("key", "memory://heads/sound.wav"), here)
    assert probe(sound) == ProbeResult(None, None, None)
    with pytest.raises(DataError, match="its first bytes say so"):
        probe(MediaSource(Utterance("key", "memory://heads/text.mp4"), here))
    assert not list(tmp_path.iterdir())


def test_of_prepared_shards_the_index_is_enough(tmp_path: Path) -> None:
    made = [example(0), example(1, audio=None, text=None, transcript=None)]
    write_prepared(tmp_path, made)
    sources = open_sources([tmp_path / "shards"])
    with Decoder() as decoder:
        found = list(decoder.probe(sources))
    assert found == [
        ProbeResult(("audio", "video", "text"), 0.5, "good morning"),
        ProbeResult(("video",), 0.48, None),
    ]
    for tar in (tmp_path / "shards").glob("*.tar"):
        tar.write_bytes(bytes(tar.stat().st_size))  # which nobody reads
    with Decoder() as decoder:
        assert list(decoder.probe(sources)) == found
    with pytest.raises(CorruptError):
        sources[0].load()
