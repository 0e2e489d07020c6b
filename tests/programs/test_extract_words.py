"""extract.py --granularity word: given times, and those of another folder's recogniser."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.forker import Forker
from helpers.prepared import example, write_prepared
from helpers.tiny_backbones import write_tiny

from mmembed.commands.cli import run_program
from mmembed.commands.verify import main as verify
from mmembed.data.manifest.jsonl import write_manifest
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.shards.layout import ShardSet
from mmembed.embedder import Embedder

TIMES = (TimedWord("Red", 0.1, 0.3), TimedWord("on", 0.3, 0.31), TimedWord("blue", 0.5, 0.9))
GIVEN = [{"text": "red", "start": 0.1, "end": 0.3}, {"text": "on", "start": 0.3, "end": 0.31},
         {"text": "blue", "start": 0.5, "end": 0.9}]  # fmt: skip


@pytest.fixture(scope="module")
def timed(here: Path) -> Path:
    """The folder of clips with a tiny Whisper and a manifest of which one row has times."""
    write_tiny(here / "whisper", "whisper")
    rows = [
        Utterance("timed", "clips/a.mp4", transcript="Red on blue.", words=TIMES),
        Utterance("said", "clips/a.mp4", transcript="red on"),
        Utterance("unknown", "clips/a.mp4"),
    ]
    write_manifest(here / "timed.jsonl", rows)
    return here


def extract(forker: Forker, folder: Path, *words: str) -> tuple[int, str]:
    argv = [*words, "--granularity", "word", "--encoder", "whisper"]
    (answer,) = forker(argv, cwd=str(folder))
    return answer


def test_given_times_need_no_recogniser(forker: Forker, timed: Path) -> None:
    code, said = extract(forker, timed, "timed.jsonl", "--out", "given", "--format", "parquet")
    assert code == 0, said
    first, second, third = (ShardSet(timed / "given").read(n).members for n in range(3))
    assert first["json"]["words"] == GIVEN and first["json"]["words_from"] == "given"
    expected = Embedder.from_pretrained(timed / "whisper")(timed / "clips" / "a.mp4").frames
    vectors = first["words.npy"]
    assert vectors.shape == (3, 32)
    np.testing.assert_allclose(vectors[0, :16], expected[5:15].mean(0), atol=1e-5)
    np.testing.assert_allclose(vectors[1, :16], expected[15], atol=1e-5)
    np.testing.assert_allclose(vectors[2, 16:], expected[25:45].std(0), atol=4e-3)
    assert "holds no recogniser.safetensors" in second["json"]["no_words"]
    assert third["json"]["no_words"] == "its words are not known"
    assert "words_from" not in second["json"] and "words_from" not in third["json"]
    assert run_program(verify, [str(timed / "given")]) == 0
    table = pq.read_table(timed / "given" / "embeddings.parquet").to_pylist()
    assert [[word["text"] for word in row["words"]] for row in table] == [
        ["red", "on", "blue"], [], [],
    ]  # fmt: skip


def test_the_recogniser_of_another_folder(forker: Forker, timed: Path) -> None:
    code, said = extract(forker, timed, "timed.jsonl", "--out", "found", "--recogniser", "encoder")
    assert code == 0, said
    shards = ShardSet(timed / "found")
    first, second, third = (shards.read(n).members for n in range(3))
    assert first["json"]["words"] == GIVEN and first["json"]["words_from"] == "given"
    embedder = Embedder.from_pretrained(timed / "whisper", recogniser=timed / "encoder")
    expected = embedder(timed / "clips" / "a.mp4", text="red on").words
    assert second["json"]["words_from"] == "ctc"
    assert second["json"]["words"] == [
        {"text": word.text, "start": word.start, "end": word.end} for word in expected
    ]
    np.testing.assert_allclose(second["words.npy"], [w.vector for w in expected], atol=1e-5)
    assert third["json"]["no_words"] == "its words are not known"
    sha256 = Embedder.from_pretrained(timed / "encoder").sha256
    assert shards.manifest["recogniser_sha256"] == sha256
    assert "--recogniser encoder" in shards.manifest["command"]


def test_what_no_word_can_come_of_is_one_line(forker: Forker, timed: Path) -> None:
    code, said = extract(forker, timed, "clips", "--out", "never")
    assert code == 2 and "no clip has words with times" in said and said.count("\n") == 1
    argv = ["clips", "--out", "never", "--encoder", "whisper", "--recogniser", "encoder"]
    ((code, said),) = forker(argv, cwd=str(timed))
    assert code == 2 and "add word to --granularity" in said and said.count("\n") == 1
    code, said = extract(forker, timed, "clips", "--out", "never", "--recogniser", "whisper")
    assert code == 2 and "recogniser whisper: holds no recogniser.safetensors" in said
    assert not (timed / "never").exists()


@pytest.mark.slow
def test_shards_of_features_keep_given_times(forker: Forker, timed: Path) -> None:
    """Whether they hold any is known only when they are read."""
    times = (TimedWord("red", 0.1, 0.2), TimedWord("on", 0.2, 0.4))
    said = {"transcript": "red on", "text": "red on"}
    held = [example(0, **said), example(1, **said, words=times)]
    write_prepared(timed / "kept", held, size=2)
    code, told = extract(forker, timed, "kept/shards", "--out", "again")
    assert code == 0, told
    described = [ShardSet(timed / "again").read(n).members["json"] for n in range(2)]
    assert [one.get("words_from") for one in described] == [None, "given"]
    assert [word["end"] for word in described[1]["words"]] == [0.2, 0.4]
