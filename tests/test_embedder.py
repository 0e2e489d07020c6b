"""The frozen encoder folder: bytes repeat, damage is one line, vectors come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import small_encoder_config

from mmembed.data.example import Example, Utterance
from mmembed.embedder import Embedder, save_encoder
from mmembed.encoder import Encoder
from mmembed.errors import CorruptError
from mmembed.features.text import Vocabulary


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocabulary = Vocabulary.train(["red on blue", "lay white at nine"], 20, "char")
    torch.manual_seed(0)
    config = small_encoder_config()
    config = type(config)(**{**vars(config), "vocabulary_size": len(vocabulary)})
    save_encoder(tmp_path / "encoder", Encoder(config), vocabulary, {"name": "made"})
    return tmp_path / "encoder"


def example() -> Example:
    random = np.random.default_rng(0)
    audio = random.standard_normal((90, 80)).astype(np.float16)
    return Example(Utterance("clip", None), audio=audio, text="red at nine")


def test_round_trip(folder: Path) -> None:
    first, second = Embedder.from_pretrained(folder), Embedder.from_pretrained(folder)
    assert torch.equal(first([example()]).layers, second([example()]).layers)
    assert first.sha256 == second.sha256
    assert first.description["layers"][-1] == "fused"
    assert not any(p.requires_grad for p in first.encoder.parameters())


def test_saving_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    embedder = Embedder.from_pretrained(folder)
    save_encoder(tmp_path / "again", embedder.encoder, embedder.vocabulary, {"name": "made"})
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocabulary.model"])
@pytest.mark.parametrize("damage", ["remove", "cut", "empty"])
def test_damage_is_one_line(folder: Path, name: str, damage: str) -> None:
    path = folder / name
    if damage == "remove":
        path.unlink()
    else:
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    with pytest.raises(CorruptError, match=str(folder)) as error:
        Embedder.from_pretrained(folder)
    assert "\n" not in str(error.value)
