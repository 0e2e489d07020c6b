"""The frozen encoder folder: bytes repeat, damage is one line, vectors come back."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.encoders import write_encoder
from helpers.support import random_item, small_method

from mmembed.data.example import Example
from mmembed.data.item import collate
from mmembed.data.manifest.utterance import Utterance
from mmembed.embedder import Embedder, Recogniser
from mmembed.embedder.folder import FILES, TOKENIZER
from mmembed.errors import CorruptError, UsageError
from mmembed.features.text import Vocabulary

DATA = {
    "name": "a|b<c>",
    "utterances": 1200,
    "hours": 1.25,
    "languages": {"en": 1199, "not stated": 1},
    "licences": {"CC BY 4.0": 1000, "not stated": 200},
}
SCORES = {"utterances": 7, "wer": 0.25, "cer": 0.125}
EVALUATION = {
    "test": {
        **SCORES,
        "by_streams": {"audio": SCORES},
        "by_corpus": {"made": SCORES},
        "samples": [{"key": "k", "reference": "SECRET", "hypothesis": "SECRET"}],
    }
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_encoder(tmp_path / "encoder", data=[DATA], evaluation=EVALUATION)


def example() -> Example:
    random = np.random.default_rng(0)
    audio = (3_000 * random.standard_normal(14_400)).astype(np.int16)
    return Example(Utterance("clip", None), audio=audio, text="red at nine")


def test_round_trip(folder: Path) -> None:
    first, second = Embedder.from_pretrained(folder), Embedder.from_pretrained(str(folder))
    assert torch.equal(first.encode([example()]).layers, second.encode([example()]).layers)
    assert first.sha256 == second.sha256
    assert not any(p.requires_grad for p in first.encoder.parameters())


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"film")
    with pytest.raises(CorruptError, match=r"clip\.mp4: is a file; name the folder of an encoder"):
        Embedder.from_pretrained(tmp_path / "clip.mp4")


def test_it_says_what_it_is(folder: Path) -> None:
    embedder = Embedder.from_pretrained(folder)
    said = repr(embedder)
    assert said.startswith("Embedder(audio+video+text: ") and said.count("\n") == 0
    assert f"{len(embedder.encoder.layer_names)} layers of width" in said
    assert said.endswith(f"on cpu; sha256 {embedder.sha256[:12]})")


def test_description_says_what_made_the_vectors(folder: Path) -> None:
    description = Embedder.from_pretrained(folder).description
    assert description["layers"][-1] == "fused"
    assert len(description["encoder_sha256"]) == 64
    assert {"mmembed", "torch", "av", "numpy"} <= set(description["made_with"])


def test_saving_again_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {*FILES} - {TOKENIZER}
    Embedder.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_a_folder_without_recogniser_replaces_one_with(folder: Path, tmp_path: Path) -> None:
    older = Embedder.from_pretrained(write_encoder(tmp_path / "older", recogniser=False))
    assert older.recogniser is None
    older.save_pretrained(folder)
    assert Embedder.from_pretrained(folder).recogniser is None
    with pytest.raises(UsageError, match=r"holds no recogniser\.safetensors"):
        older(text="red", transcribe=True)


def test_the_card_says_data_licences_and_scores(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert "language: ['en']" in card and card.startswith("---\nlibrary_name: mmembed\n")
    assert r"a\|b&lt;c&gt;" in card and "1,000 CC BY 4.0, 200 not stated" in card
    assert "| audio | 7 | 25.0% | 12.5% |" in card
    assert Embedder.from_pretrained(folder).sha256 in card
    assert "SECRET" not in card + (folder / "config.json").read_text()


def test_the_recogniser_is_the_methods_own_head() -> None:
    method = small_method().eval()
    alphabet = Vocabulary.train(["abcdefghijklmnopq"], 20, "char")
    batch = collate([random_item(("audio", "video"), 3)])
    with torch.no_grad():
        best = method.predict(batch)["transcript"][0]
        spoken = method.encoder.encode(batch.inputs).audio_visual
        (log_probs,) = Recogniser(method.ctc_head, alphabet)(spoken).split()
    assert log_probs.argmax(1).tolist() == best.tolist()


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("README.md", TOKENIZER)])
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


class Touch:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("README.md", TOKENIZER)])
@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_nothing_in_a_folder_is_run(folder: Path, tmp_path: Path, name: str, kind: str) -> None:
    bomb, sentinel = tmp_path / "bomb", tmp_path / "sentinel"
    if kind == "torch":
        torch.save(Touch(sentinel), bomb)
    else:
        bomb.write_bytes(pickle.dumps(Touch(sentinel)))
    bomb.replace(folder / name)
    with pytest.raises(CorruptError, match=str(folder)):
        Embedder.from_pretrained(folder)
    assert not sentinel.exists()


def test_the_bomb_would_go_off(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Touch(tmp_path / "sentinel")))
    assert (tmp_path / "sentinel").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("encoder", "there is no such folder"),
        ("/no/such/place", "there is no such folder"),
        ("here/misspelt", "there is no such folder"),
        ("someone/something", r"needs pip install 'mmembed\[hub\]'"),
    ],
)
def test_names_that_lead_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match=words) as error:
        Embedder.from_pretrained(name)
    assert "\n" not in str(error.value)
