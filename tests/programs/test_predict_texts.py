"""`mmembed predict --emotions`, as a user calls it after a run of demux."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_bert import write_bert, write_posts
from mmembed_train.finetune import main as finetune

from mmembed.commands.predict import main as predict
from mmembed.errors import CorruptError, MmembedError, UsageError

pytestmark = pytest.mark.slow

MMEMBED = [sys.executable, "-m", "mmembed.commands.cli"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demux")
    bert = write_bert(folder / "bert")
    shards = write_posts(folder / "shards", {"train": 160, "dev": 40, "test": 20})
    data = ["--shards", str(shards), "--backbone", str(bert), "--variants", "memo", "intra"]
    loop = ["--optim.lr", "7e-3", "--loop.batch-size", "8", "--loop.epochs", "8"]
    out = folder / "run"
    finetune(["demux", *data, *loop, "--loop.seeds", "0", "1", "--out", str(out)])
    return out


def ask(
    run: Path, capsys: pytest.CaptureFixture[str], emotions: str, *texts: str
) -> list[dict[str, float]]:
    """The emotions of each text, as JSON."""
    capsys.readouterr()
    predict([*texts, "--emotions", emotions, "--run", str(run), "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == list(texts)
    assert all(row["trained_on"].endswith(" texts") for row in rows)
    return [row["emotions"] for row in rows]


def test_the_command_prints_a_table(run: Path) -> None:
    arguments = ["predict", "-", "so SUNNY//today", "--emotions", "joy, anger, hope or pride"]
    done = subprocess.run(
        [*MMEMBED, *arguments, "--run", str(run)],
        input="a furious day\n\nwe saw them\x1b\n", capture_output=True, text=True, check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known, head, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"trained on: .*, \d+ texts", known)
    assert head.split() == ["text", "joy", "anger", "hope", "or", "pride"]
    assert [row[:40].strip() for row in rows] == [
        "a furious day",
        "we saw them\\x1b",
        "so SUNNY//today",
    ]
    furious, plain, _ = ([float(cell) for cell in row[40:].split()] for row in rows)
    assert furious[1] > 0.5 > furious[0] and max(plain[:2]) < 0.5
    assert len({len(row) for row in (head, *rows)}) == 1


def test_the_order_of_the_words_means_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ("a furious day", "sunny again @you")
    given = ask(run, capsys, "joy, anger, quiet pride or hope", *texts)
    turned = ask(run, capsys, "quiet pride or hope, joy, anger", *texts)
    assert given == turned and list(turned[0]) == ["quiet pride or hope", "joy", "anger"]
    assert given[0]["anger"] > 0.5 > given[0]["joy"]
    assert given[1]["joy"] > 0.5 > given[1]["anger"]


def test_memo_is_asked_for_what_it_knows(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predict(["so sunny", "--emotions", "joy,anger", "--run", str(run), "--variant", "memo"])
    assert capsys.readouterr().out.splitlines()[1].split() == ["text", "joy", "anger"]
    with pytest.raises(
        UsageError, match="MEmo knows the emotions of its training alone, not 'awe'"
    ):
        predict(["so", "--emotions", "joy,awe", "--run", str(run), "--variant", "memo"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["so", "--emotions", " , "], "no emotion in"),
        (["so", "--emotions", "joy or"], "a word is missing beside 'or'"),
        (["so", "--emotions", "joy", "--variant", "bce"], "no variant 'bce'; it has memo, intra"),
        (["-", "--emotions", "joy"], "no text"),
        (["so", "--emotions", "joy", "--run", "/no/such"], "/no/such: holds no run of demux"),
        (["so", "--emotions", ",".join(f"hope {n}" for n in range(40))], "emotion words take"),
    ],
)
def test_what_cannot_be_asked_is_told(
    run: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    with pytest.raises(MmembedError, match=message) as caught:
        predict(["--run", str(run), *arguments])
    assert "\n" not in str(caught.value)


def test_a_run_that_lost_a_part_is_told(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    weights = copy / "intra" / "seed-1.safetensors"
    shutil.copy(copy / "memo" / "seed-1.safetensors", weights)
    with pytest.raises(
        CorruptError, match=r"intra/seed-1.safetensors: .* by the configuration it is"
    ):
        predict(["so", "--emotions", "joy", "--run", str(copy)])
    weights.unlink()
    with pytest.raises(CorruptError, match=r"intra/seed-1.safetensors: is missing"):
        predict(["so", "--emotions", "joy", "--run", str(copy)])
    told = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**told, "backbone": str(tmp_path / "gone")}))
    with pytest.raises(UsageError, match="gone: there is no such folder"):
        predict(["so", "--emotions", "joy", "--run", str(copy)])
