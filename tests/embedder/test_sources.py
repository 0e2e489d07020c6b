"""Encoders by name: folders of ours, folders of transformers, several by stream."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.encoders import write_encoder
from helpers.tiny_backbones import write_tiny

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Utterance
from mmembed.embedder import Embedder
from mmembed.errors import UsageError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: str(write_tiny(folder / kind, kind)) for kind in ("whisper", "bert", "vit")}


def example(seconds: float = 1.0, text: str | None = "What a quiet day") -> Example:
    noise = np.random.default_rng(0).normal(0, 2000, round(16_000 * seconds))
    row = Utterance("clip", None, transcript=text)
    return Example(row, audio=noise.astype(np.int16), text=text and text.lower())


def test_a_folder_of_transformers_needs_no_training(folders: dict[str, str]) -> None:
    embedder = Embedder.from_pretrained(folders["whisper"])
    (found,) = embedder.embed([example()])
    assert found.layers.shape == (3, 32) and found.frames.shape == (50, 16)
    assert found.times[:2].tolist() == pytest.approx([0.01, 0.03])
    assert embedder.description["layers"] == ["audio 0", "audio 1", "audio 2"]
    assert "public encoders as published" in embedder.trained_on
    with pytest.raises(UsageError, match="audio alone"):
        embedder.streams("audio+text")
    assert embedder.streams() == ("audio",)


def test_several_are_named_by_stream(folders: dict[str, str]) -> None:
    names = {"audio": folders["whisper"], "text": folders["bert"]}
    by_mapping = Embedder.from_pretrained(names)
    by_words = Embedder.from_pretrained([f"{s}={name}" for s, name in names.items()])
    assert by_mapping.sha256 == by_words.sha256
    one, other = by_mapping.encode([example()]), by_words.encode([example()])
    assert torch.equal(one.layers, other.layers) and one.layers.shape == (1, 3 + 4, 32)


def test_texts_are_read_as_they_were_written(folders: dict[str, str]) -> None:
    embedder = Embedder.from_pretrained(folders["bert"])
    assert embedder.subwords is not None
    held = example(text="They left: what a quiet day!")
    held = Example(held.utterance, text="they left what a quiet day")
    written = embedder.subwords.encode("They left: what a quiet day!")
    packed = embedder.pack([held])
    assert packed is not None and packed.streams["text"].values.tolist() == written


def test_saved_and_loaded_it_is_the_same_encoder(folders: dict[str, str], tmp_path: Path) -> None:
    embedder = Embedder.from_pretrained([f"audio={folders['whisper']}", f"text={folders['bert']}"])
    embedder.save_pretrained(tmp_path / "saved")
    again = Embedder.from_pretrained(tmp_path / "saved")
    assert again.sha256 == embedder.sha256
    assert torch.equal(again.encode([example()]).layers, embedder.encode([example()]).layers)
    card = (tmp_path / "saved" / "README.md").read_text()
    assert embedder.sha256 in card and folders["bert"] in card


def test_a_long_recording_is_read_by_windows(folders: dict[str, str]) -> None:
    embedder = Embedder.from_pretrained(folders["whisper"])
    (found,) = embedder.embed([example(301.0)])
    assert found.frames.shape == (301 * 50, 16) and np.isfinite(found.layers).all()
    assert found.pooled == pytest.approx(found.layers[-1])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["audio=a", "video"], "video: of several encoders each is STREAM=NAME"),
        (["audio=a", "audio=b"], "audio has an encoder already"),
        (["audio=/nowhere"], "/nowhere"),
        ([], "no encoder is named"),
    ],
)
def test_what_names_no_encoder_is_one_line(names: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        Embedder.from_pretrained(names)
    assert "\n" not in str(raised.value)


def test_the_wrong_stream_is_one_line(folders: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="encodes audio, not text"):
        Embedder.from_pretrained([f"text={folders['whisper']}"])


def test_ours_may_be_named_as_before(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "ours")
    assert Embedder.from_pretrained([str(folder)]).sha256 == Embedder.from_pretrained(folder).sha256
