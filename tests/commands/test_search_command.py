"""`mmembed search` on embeddings that `mmembed extract` made of prepared shards and of a sound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.page import read_page
from helpers.prepared import described, embedding, example, write_embeddings, write_prepared
from helpers.support import small_encoder_config
from mmembed_export.extract import main as extract

from mmembed.commands.cli import run_program
from mmembed.commands.search import main
from mmembed.data.inputs import portable_key
from mmembed.embedder import save_encoder
from mmembed.embeddings.ivf import KEPT
from mmembed.embeddings.read import COPY
from mmembed.encoder import Encoder
from mmembed.features.text import Vocabulary

HOSTILE = "<script>alert(1)</script>\x1b[31m\"'&\u202e"

Capture = pytest.CaptureFixture[str]


def make_encoder(folder: Path, seed: int) -> Path:
    vocabulary = Vocabulary.train(["good morning so it goes", "come back soon no"], 20, "char")
    torch.manual_seed(seed)
    config = small_encoder_config()
    config = type(config)(**{**vars(config), "vocabulary_size": len(vocabulary)})
    save_encoder(folder, Encoder(config), vocabulary, {"name": "made"})
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """encoder, clip.wav, and embeddings of five clips and that sound from all and from sound."""
    folder = tmp_path_factory.mktemp("made")
    make_encoder(folder / "encoder", 0)
    samples = np.random.default_rng(0).standard_normal(12_000) / 10
    soundfile.write(folder / "clip.wav", samples, 16_000)
    shards = write_prepared(folder / "corpus", [example(n) for n in range(5)]) / "shards"
    inputs = [str(shards), str(folder / "clip.wav"), "--encoder", str(folder / "encoder")]
    extract([*inputs, "--out", str(folder / "all")])
    extract([*inputs, "--out", str(folder / "of"), "--streams", "audio"])
    return folder


def search(*arguments: object) -> int:
    return run_program(main, [str(argument) for argument in arguments])


def found(capsys: Capture) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_key_finds_itself_first(made: Path, capsys: Capture) -> None:
    assert search(made / "all", "clip-3", "--json", "--k", 4) == 0
    rows = found(capsys)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    assert rows[0] == {
        "rank": 1, "cosine": 1.0, "key": "clip-3", "speaker": "s1", "split": "train",
        "streams": "audio+video+text", "labels": "sentiment +3.0", "text": "no",
    }  # fmt: skip
    assert (made / "all" / COPY).is_file()


def test_of_a_few_clips_approximate_search_finds_all(made: Path, capsys: Capture) -> None:
    assert search(made / "all", "clip-3", "--json") == 0
    exact = found(capsys)
    assert search(made / "all", "clip-3", "--json", "--approximate") == 0
    assert found(capsys) == exact and len(exact) > 1
    assert (made / "all" / KEPT).is_file()


def test_the_table(made: Path, capsys: Capture) -> None:
    assert search(made / "all", "clip-3", "--speaker", "s0", "--k", 2) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["rank", "cosine", "key", "speaker", "split", "labels", "text"]
    assert len(lines) == 2
    assert all("clip-3" not in line and "  s0  " in line for line in lines)


def test_a_clip_finds_itself_first(made: Path, capsys: Capture) -> None:
    query = made / "of" / "audio", made / "clip.wav", "--encoder", made / "encoder", "--json"
    assert search(*query) == 0
    first, second, *_ = found(capsys)
    assert first["key"] == portable_key(str(made / "clip.wav"))
    assert first["cosine"] == pytest.approx(1, abs=1e-6)
    assert second["cosine"] < first["cosine"]


def test_missing_streams_are_told(made: Path, capsys: Capture) -> None:
    folder, encoder = made / "all", made / "encoder"
    assert search(folder, made / "clip.wav", "--encoder", encoder) == 0
    assert "note: the query has only audio of audio+video+text" in capsys.readouterr().err
    assert search(folder, made / "clip.wav", "--encoder", encoder, "--text", "so it goes") == 0
    assert "note: the query has only audio+text of" in capsys.readouterr().err
    assert search(folder, "so it goes", "--encoder", encoder) == 0
    assert "note: the query has only text of" in capsys.readouterr().err


def test_nothing_in_common_is_an_error(made: Path, capsys: Capture) -> None:
    folder = made / "of" / "audio"
    assert search(folder, "so it goes", "--encoder", made / "encoder") == 2
    assert f"the query has text, {folder} holds vectors of audio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["so it goes"], "a text has to be embedded; name the encoder, --encoder DIR"),
        (["gone.mp4"], "gone.mp4: no such file; --by text searches for these words"),
        (["clip-9", "--by", "key"], "holds no clip with the key 'clip-9'"),
        (["clip-1", "--k", "0"], "--k 0: at least 1"),
        (["clip-1", "--label", "sad"], "no clip has label 'sad'"),
        (["...", "--encoder", "{encoder}"], "'...': holds no word"),
        (["a", "--text", "b", "--encoder", "{encoder}"], "--text gives the words of a clip"),
        (["so it goes", "--encoder", "{other}"], "another encoder (SHA-256"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    made: Path, tmp_path: Path, capsys: Capture, arguments: list[str], message: str
) -> None:
    folders = {"encoder": made / "encoder", "other": make_encoder(tmp_path / "other", 1)}
    assert search(made / "all", *(a.format(**folders) for a in arguments)) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert message in errors[0]


def test_a_clip_that_cannot_be_read_is_data(made: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "bad.wav").write_bytes(b"nothing of the kind")
    assert search(made / "all", tmp_path / "bad.wav", "--encoder", made / "encoder") == 4
    assert f"error: {tmp_path / 'bad.wav'}: " in capsys.readouterr().err


def test_the_page_is_closed_and_refers_to_nothing_outside(made: Path, tmp_path: Path) -> None:
    assert search(made / "all", "clip-3", "--html", tmp_path / "page.html", "--k", 3) == 0
    page = read_page((tmp_path / "page.html").read_text())
    assert sum(name == "img" for name, _ in page.seen) == 3
    assert "clip-3 (1.0000)" in page.text
    assert "The 3 of 6 clips" in page.text


def test_hostile_names_are_shown_and_not_obeyed(tmp_path: Path, capsys: Capture) -> None:
    bad = described(1, speaker=HOSTILE, labels={"category": HOSTILE})
    bad = type(bad)("k" + HOSTILE, bad.members, bad.meta)
    folder = write_embeddings(tmp_path / "e", [embedding(0), bad], ["audio"])
    assert search(folder, bad.key, "--html", tmp_path / "page.html") == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\u202e" not in printed.out + printed.err
    page = read_page((tmp_path / "page.html").read_text())
    assert HOSTILE in page.text
