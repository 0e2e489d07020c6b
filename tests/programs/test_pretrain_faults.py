"""pretrain.py stopped in each phase, on a full disk, on data that are not as they should be."""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.forker import Forker
from helpers.pretraining import PROGRAM, clip, result_of, settings, write_clips

from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import to_record
from mmembed.embedder import Embedder


@pytest.fixture(scope="module")
def pretrain() -> Iterator[Forker]:
    made = Forker(PROGRAM, "mmembed.pretraining.pretrain")
    yield made
    made.close()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """corpus: eighteen clips of some 1 s, some of them held out or of dev, some texts alone."""
    folder = tmp_path_factory.mktemp("here")
    clips = [
        clip(n, 100 + n, split={7: "heldout", 8: "dev", 9: "test"}.get(n % 10, "train"))
        for n in range(18)
    ]
    clips += [clip(n, 100, streams=("text",), split=s) for n, s in ((20, "train"), (21, "heldout"))]
    write_clips(folder / "corpus", clips)
    return folder


SHORT = ("--loop.epochs", "2", "--loop.evaluate-every", "1", "--data.frames", "60")


@pytest.fixture(scope="module")
def undisturbed(pretrain: Forker, here: Path) -> Path:
    ((code, said),) = pretrain(settings("corpus", "undisturbed", *SHORT), cwd=str(here))
    assert code == 0, said
    return here / "undisturbed"


@pytest.mark.slow
def test_stopped_in_each_phase(pretrain: Forker, here: Path, undisturbed: Path) -> None:
    """One run is stopped again and again, each time where it had not come before."""
    for at, number, expected, words in (
        ("program:open_corpus", signal.SIGTERM, 75, "goes on from here"),
        ("program:train_step", signal.SIGTERM, 75, "stopped at step 1;"),
        ("program:train_step", signal.SIGINT, 75, "stopped at step 2;"),
        ("program:quick_scores", signal.SIGUSR1, 75, "goes on from here"),
        ("program:evaluate_speech", signal.SIGTERM, 75, "goes on from here"),
        ("program:evaluate_speech", signal.SIGINT, 130, "interrupted"),
        ("program:write_json", signal.SIGTERM, 75, "goes on from here"),
    ):
        injected = [{"at": at, "signal": int(number)}]
        argv = settings("corpus", "stopped", *SHORT)
        ((code, said),) = pretrain(argv, cwd=str(here), inject=injected)
        assert code == expected and words in said.splitlines()[-1], (at, code, said)
        assert not (here / "stopped" / "evaluation.json").exists()
    ((code, said),) = pretrain(settings("corpus", "stopped", *SHORT), cwd=str(here))
    assert code == 0 and "Traceback" not in said, said
    assert result_of(here / "stopped") == result_of(undisturbed)


@pytest.mark.slow
def test_a_full_disk_at_each_write(pretrain: Forker, here: Path, undisturbed: Path) -> None:
    """Whatever is being written: one line, exit code 74, nothing lost and nothing left over."""
    for file in ("run.json", "untrained/.model", "metrics.jsonl", "trainer.pt", "step-00000003",
                 "encoder/.model", "evaluation.json"):  # fmt: skip
        argv = settings("corpus", "full", *SHORT)
        injected = [{"at": "os:fsync", "file": file, "errno": errno.ENOSPC}]
        ((code, said),) = pretrain(argv, cwd=str(here), inject=injected)
        last = said.splitlines()[-1]
        assert code == 74 and "Traceback" not in said, (file, said)
        assert last.startswith("error: [Errno 28] No space left on device: '"), last
        assert "free some space and run again" in last
        left = [path.name for path in (here / "full").rglob("*.tmp")]
        assert left == [], file
    ((code, said),) = pretrain(settings("corpus", "full", *SHORT), cwd=str(here))
    assert code == 0, said
    assert result_of(here / "full") == result_of(undisturbed)


def test_a_second_copy_waits_and_has_nothing_to_do(
    pretrain: Forker, here: Path, undisturbed: Path
) -> None:
    argv = settings("corpus", "twice", *SHORT)
    answers = pretrain(argv, argv, cwd=str(here))
    assert [code for code, _ in answers] == [0, 0], answers
    assert sum("encoder: " in said for _, said in answers) == 1
    assert result_of(here / "twice") == result_of(undisturbed)


def test_damage_before_a_resume(pretrain: Forker, here: Path, undisturbed: Path) -> None:
    """The newest checkpoint, and the record of steps: half a line, and one of zeros."""
    argv = settings("corpus", "damaged", *SHORT)
    injected = [{"at": "program:train_step", "call": 4, "signal": int(signal.SIGTERM)}]
    assert pretrain(argv, cwd=str(here), inject=injected)[0][0] == 75
    newest = here / "damaged" / "checkpoints" / "step-00000004" / "method.safetensors"
    held = newest.read_bytes()
    newest.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    record = here / "damaged" / "metrics.jsonl"
    record.write_bytes(record.read_bytes()[:-20] + b"\0\0\n" + b'{"split": "tr')
    ((code, said),) = pretrain(argv, cwd=str(here))
    assert code == 0 and "step-00000004 is damaged" in said and "2 line(s)" in said, said
    assert result_of(here / "damaged") == result_of(undisturbed)


def test_losses_that_are_not_finite(pretrain: Forker, here: Path) -> None:
    """Three steps in a row stop a run, and a run of fewer steps has learned nothing: no encoder."""
    clips = [clip(number, 100, split="train" if number else "heldout") for number in range(12)]
    write_clips(here / "loud", clips)
    louder = ("--data.augmentation.gain", "1e300")
    for out, frames, steps in (("diverged", "60", 3), ("two steps", "9999", 2)):
        argv = settings("loud", out, "--loop.epochs", "2", "--data.frames", frames, *louder)
        ((code, said),) = pretrain(argv, cwd=str(here))
        assert code == 1 and f"not finite {steps} steps in a row" in said.splitlines()[-1], said
        assert not (here / out / "encoder").exists()
        assert "NaN" not in (here / out / "metrics.jsonl").read_text()
    ((code, _),) = pretrain(argv, cwd=str(here))  # nor by starting it again
    assert code == 1 and not (here / "two steps" / "encoder").exists()


def test_what_cannot_be_scored_is_left_out(pretrain: Forker, here: Path, undisturbed: Path) -> None:
    """Texts alone, as a split and as the streams of a run; nobody known; nothing held out."""
    scores = json.loads((undisturbed / "evaluation.json").read_text())
    assert scores["heldout"]["utterances"] == 2  # a third one is a text alone
    assert set(scores["heldout"]["by_corpus"]) == {"corpus"}
    texts = [clip(n, 100, streams=("text",), split="heldout") for n in (1, 2)]
    nameless = [clip(n, 100 + n, speaker=None) for n in range(3, 12)]
    write_clips(here / "odd" / "shards", [*texts, *nameless])
    more = ("--loop.epochs", "1", "--loop.evaluate-every", "1")
    for out, words in (("odd", ()), ("texts", ("--data.streams", "text"))):
        argv = settings("odd/shards", f"{out}-run", *more, *words)
        ((code, said),) = pretrain(argv, cwd=str(here))
        assert code == 0 and "nothing to learn speaker from" in said, said
        scores = json.loads((here / f"{out}-run" / "evaluation.json").read_text())
        assert set(scores) == {"fusion_weights", "layer_weights"}
    embedder = Embedder.from_pretrained(here / "texts-run" / "encoder")
    assert embedder.recogniser is None and embedder.config["data"][0]["name"] == "odd"


def test_an_encoder_is_there_before_it_is_scored(pretrain: Forker, here: Path) -> None:
    """A damaged record of the held-out split costs the scores, not the training; shards that were
    replaced since are other data.
    """
    clips = [clip(n, 100, split="train" if n < 8 else "heldout") for n in range(9)]
    folder = write_clips(here / "held" / "shards", clips)
    (tar,) = folder.glob("*.tar")
    whole = tar.read_bytes()
    cut = bytearray(whole)
    cut[-20_000] ^= 1
    tar.write_bytes(cut)
    argv = settings("held/shards", "held-run", "--loop.epochs", "1")
    ((code, said),) = pretrain(argv, cwd=str(here))
    assert code == 5 and tar.name in said.splitlines()[-1], said
    assert Embedder.from_pretrained(here / "held-run" / "encoder").config["evaluation"] is None
    tar.write_bytes(whole)
    ((code, said),) = pretrain(argv, cwd=str(here))
    scores = json.loads((here / "held-run" / "evaluation.json").read_text())
    assert code == 0 and set(scores["heldout"]["by_corpus"]) == {"held"}, said
    for path in folder.iterdir():
        path.unlink()
    write_clips(folder, clips[::-1])
    ((code, said),) = pretrain(argv, cwd=str(here))
    assert code == 2 and "shards were replaced since" in said, said


def test_nothing_to_learn_is_refused_first(pretrain: Forker, here: Path) -> None:
    write_clips(here / "silent", [clip(n, 100, transcript=None) for n in range(3)])
    for argv, words in (
        (settings("corpus", "no", "--data.streams", "text", "--method.masked-text-weight", "0"),
         "nothing to learn in corpus by text: no record has what ctc or speaker needs"),
        (settings("silent", "no"), "no transcript in silent"),
    ):  # fmt: skip
        ((code, said),) = pretrain(argv, cwd=str(here))
        assert code == 2 and words in said and said.count("\n") == 1, said
        assert not (here / "no").exists()


def test_a_row_that_is_none_is_refused_before_the_first_step(pretrain: Forker, here: Path) -> None:
    """The training itself reads no row of a shard; they are read once, when a run starts."""
    records = [Record(*to_record(clip(n, 80))) for n in range(3)]
    described = records[1].members["json"]
    described["utterance"]["key"] = "made.01"
    write_shard(shard_path(here / "forged", 0), records, {})
    ((code, said),) = pretrain(settings("forged", "refused", *SHORT), cwd=str(here))
    last = said.splitlines()[-1]
    assert code == 5 and "Traceback" not in said, said
    assert last.startswith("error: made-01: not a record of prepared features (key 'made.01'"), last
    assert not (here / "refused" / "checkpoints").exists()
