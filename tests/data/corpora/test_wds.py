"""Tars that the library webdataset wrote, read, prepared and embedded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import webdataset
from helpers.clips import grey_steps, tone, write_video

from mmembed.commands.prepare import main as prepare
from mmembed.data.corpora import wds
from mmembed.data.dataset import Examples
from mmembed.data.inputs import open_sources
from mmembed.data.media.pool import Decoder
from mmembed.errors import DataError, UsageError


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "clip.mp4", grey_steps(range(0, 250, 10)), np.arange(25) / 25, tone(1.0))
    soundfile.write(folder / "clip.flac", tone(0.6), 16_000)
    return {path.suffix[1:]: path.read_bytes() for path in folder.iterdir()}


def write(tar: Path, *samples: dict[str, object]) -> Path:
    tar.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(tar)) as sink:
        for sample in samples:
            sink.write(sample)
    return tar


@pytest.fixture
def tars(media: dict[str, bytes], tmp_path: Path) -> Path:
    described = {"text": "not this", "speaker": "ann", "emotion": 3, "start": 0.2, "label": "Joy"}
    write(
        tmp_path / "train-000.tar",
        {"__key__": "a/one", "mp4": media["mp4"], "txt": b"well, yes\n", "json": described},
        {"__key__": "two", "flac": media["flac"], "json": {"transcript": "no", "split": "val"}},
    )
    write(
        tmp_path / "train-001.tar",
        {"__key__": "three", "mp4": media["mp4"], "wav": b"not read", "cls": b"anger"},
        {"__key__": "four", "jpg": b"no clip", "txt": b"nothing"},
    )
    return tmp_path


def test_samples_are_rows(tars: Path) -> None:
    pattern = tars / "train-{000..001}.tar"
    one, two, three = wds.read(pattern)
    assert [row.key for row in (one, two, three)] == ["a%2Fone", "two", "three"]
    assert one.media == f"{tars}/train-000.tar#a/one.mp4"
    assert (one.transcript, one.speaker, one.start, one.split) == ("well, yes", "ann", 0.2, "train")
    assert (two.transcript, two.split, two.media) == ("no", "dev", f"{tars}/train-000.tar#two.flac")
    assert (one.labels.category, three.labels.category) == ("happy", "angry")
    assert wds.read(tars) == [one, two, three]


def test_they_are_prepared_and_embedded_where_they_lie(
    tars: Path, media: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    prepare(["wds", str(tars / "train-{000..001}.tar"), "--out", str(out), "--workers", "1"])
    prepared = {example.key: example for example in Examples([out / "shards"])}
    assert prepared.keys() == {"a%2Fone", "two", "three"}
    for named in ([tars], [tars / "train-000.tar", tars / "train-001.tar"]):
        with Decoder() as decoder:
            sources = open_sources(named)
            found = {
                source.key: x for source, x in zip(sources, decoder.load(sources), strict=True)
            }
        assert found.keys() == prepared.keys()
        for key, example in found.items():
            assert not isinstance(example, DataError)
            assert np.array_equal(example.audio, prepared[key].audio)
            assert example.utterance.speaker == prepared[key].utterance.speaker
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".mp4", ".flac")]


def test_what_cannot_be_read_is_told(tars: Path, media: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such archive"):
        wds.read(tars / "train-{000..002}.tar")
    twice = write(tmp_path / "more" / "a.tar", {"__key__": "two", "mp4": media["mp4"]})
    write(tmp_path / "more" / "b.tar", {"__key__": "two", "mp4": media["mp4"]})
    with pytest.raises(DataError, match="another sample has its key"):
        wds.read(twice.parent)
    odd = write(tmp_path / "odd.tar", {"__key__": "x", "mp4": media["mp4"], "json": {"start": "a"}})
    with pytest.raises(DataError, match=r"odd\.tar#x\.mp4.*start"):
        wds.read(odd)
    empty = write(tmp_path / "none" / "c.tar", {"__key__": "x", "txt": b"words"})
    with pytest.raises(DataError, match="no sample with media"):
        wds.read(empty)
    ours = tmp_path / "ours"
    prepare(["wds", str(tars / "train-000.tar"), "--out", str(ours), "--workers", "1"])
    with pytest.raises(UsageError, match="a shard of ours; name its folder"):
        open_sources([next((ours / "shards").glob("*.tar"))])
    assert json.loads((ours / "manifest.jsonl").read_text().splitlines()[0])["speaker"] == "ann"
