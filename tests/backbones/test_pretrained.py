"""Loading pretrained encoders: what is read, what is refused and with which words, the digest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.tiny_backbones import write_tiny
from safetensors.torch import load_file, save_file

from mmembed.backbones.pretrained import build_encoder, digest, load_pretrained
from mmembed.errors import UsageError

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("whisper"), "whisper")


@pytest.mark.slow
def test_our_package_does_not_import_transformers():
    code = "import sys, mmembed.backbones.pretrained; sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_weights_are_those_of_the_file(whisper: Path):
    found = load_pretrained(str(whisper))
    prefix = "model.encoder."
    stored = {
        name.removeprefix(prefix): value
        for name, value in load_file(whisper / "model.safetensors").items()
        if name.startswith(prefix)
    }
    loaded = found.encoder.model.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    assert not found.encoder.training and found.tokenizer is None


def test_the_same_module_is_built_from_its_settings(whisper: Path):
    found = load_pretrained(str(whisper), "audio")
    built = build_encoder(json.loads(json.dumps(found.encoder.config)))
    assert digest(built) != found.sha256
    built.model.load_state_dict(found.encoder.model.state_dict())
    assert digest(built) == found.sha256


def test_the_digest_names_the_encoder_and_not_its_files(whisper: Path, tmp_path: Path):
    sha256 = load_pretrained(str(whisper)).sha256

    def again() -> str:
        return load_pretrained(str(tmp_path)).sha256

    weights = load_file(whisper / "model.safetensors")
    config = json.loads((whisper / "config.json").read_text())
    halves = [dict(list(weights.items())[part::2]) for part in (0, 1)]
    index = {}
    for number, half in enumerate(halves):
        save_file(half, tmp_path / f"part-{number}.safetensors", {"format": "pt"})
        index |= dict.fromkeys(half, f"part-{number}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    (tmp_path / "config.json").write_text(json.dumps(config | {"suppress_tokens": [3]}))
    assert again() == sha256
    (tmp_path / "config.json").write_text(json.dumps(config | {"activation_function": "relu"}))
    assert again() != sha256


def change_config(folder: Path, **changed: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def no_such_folder(folder: Path) -> str:
    return str(folder / "none")


def other_architecture(folder: Path) -> str:
    change_config(folder, model_type="bark")
    return str(folder)


def other_files(folder: Path) -> str:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return str(folder)


def lacks_weights(folder: Path) -> str:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["model.encoder.conv2.bias"]
    save_file(weights, path, {"format": "pt"})
    return str(folder)


def other_sizes(folder: Path) -> str:
    change_config(folder, d_model=32)
    return str(folder)


def damaged(folder: Path) -> str:
    (folder / "model.safetensors").write_bytes(b"no weights")
    return str(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_such_folder, "there is no such folder"),
        (other_architecture, "model type bark is none of .*whisper"),
        (other_files, r"holds no \*.safetensors"),
        (lacks_weights, "lack 1 weights of whisper, such as conv2.bias"),
        (other_sizes, "not an encoder we can load"),
        (damaged, "not an encoder we can load"),
    ],
)
def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path, spoil, said):
    write_tiny(tmp_path, "whisper")
    name = spoil(tmp_path)
    with pytest.raises(UsageError, match=said) as caught:
        load_pretrained(name)
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)


def test_another_stream_is_refused(whisper: Path):
    with pytest.raises(UsageError, match="whisper encodes audio, not text"):
        load_pretrained(str(whisper), "text")


def test_a_missing_library_is_named(whisper: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UsageError, match=r"needs pip install 'mmembed\[backbones\]'"):
        load_pretrained(str(whisper))


def test_settings_that_build_nothing_are_refused():
    with pytest.raises(UsageError, match=r"config\.json: model type None is none of"):
        build_encoder({})


def test_weights_of_older_files_are_found_under_their_old_names(tmp_path: Path):
    """torch renamed the two parts of a normed weight; most files on the hub are older."""
    sha256 = load_pretrained(str(write_tiny(tmp_path, "wav2vec2"))).sha256
    path, new = tmp_path / "model.safetensors", "parametrizations.weight.original"
    weights = {
        name.replace(f"{new}0", "weight_g").replace(f"{new}1", "weight_v"): value
        for name, value in load_file(path).items()
    }
    assert any(name.endswith("weight_g") for name in weights)
    save_file(weights, path, {"format": "pt"})
    assert load_pretrained(str(tmp_path)).sha256 == sha256
