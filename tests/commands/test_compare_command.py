"""`mmembed compare`: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.studied import TRUTH, fewer_draws, sentiment, write_run

from mmembed.commands.cli import run_program
from mmembed.commands.compare import main
from mmembed.studies.scoring import TestSet

EXACT = np.array([TRUTH], np.float32)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_draws(monkeypatch)


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    off = np.concatenate([EXACT + 1, EXACT + 1.5])
    write_run(tmp_path / "a", sentiment(), {"exact": EXACT, "off": off})
    write_run(tmp_path / "b\x1b[2J", sentiment(), {"off": off[:1]})
    return [str(tmp_path / "a"), str(tmp_path / "b\x1b[2J")]


def test_rows_stand_side_by_side(runs: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(main, runs) == 0
    head, _, rests, *rows = capsys.readouterr().out.splitlines()
    assert head == "test: 12 items of 6 speakers; mae: lower is better; differences to a: exact"
    assert " ".join(rests.split()) == "(items / groups) 12 / 6 12 / 6 12 / 6 12 / 6"
    cells = {row[:24].strip(): row[24:].split() for row in rows}
    assert cells["a: exact"][:5] == ["0.000", "0.000", "to", "0.000", "-"]
    spread = ["1.250", "+-", "0.250", "1.250", "to", "1.250"]
    assert cells["a: off"][:10] == [*spread, "+1.250", "+1.250", "to", "+1.250"]
    assert cells["b\\x1b[2J: off"][:5] == ["1.000", "1.000", "to", "1.000", "+1.000"]
    assert cells["constant"][0] == f"{np.mean(np.abs(np.array(TRUTH) - 1 / 3)):.3f}"


def test_the_page_is_written_where_it_is_asked_for(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    assert run_program(main, [runs[0], "--metric", "correlation", "--out", str(out)]) == 0
    assert capsys.readouterr().out.endswith(f"\n{out}\n")
    assert "<!doctype html>" in out.read_text()
    assert not list((tmp_path / "a").glob("*.html"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the output folder"),
        (["absent"], "absent: no such folder"),
        (["a", "a"], "a: named twice"),
        (["a", "--metric", "uar"], "test test has no metric 'uar'; there are correlation, mae"),
        (["a", "--reference", "of"], "no row 'of' to compare with; there are exact, off, constant"),
        (["a", "--test", "dev"], "no test 'dev'; there are test"),
    ],
)
def test_what_cannot_be_is_one_line(
    runs: list[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_program(main, arguments) == 2
    told = capsys.readouterr()
    assert told.out == "" and message in told.err.splitlines()[-1]
    assert told.err.splitlines()[-1].startswith("error: ")


def test_one_speaker_has_a_dash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    alone = TestSet(**{**vars(sentiment()), "groups": ("ann",) * 12})
    write_run(tmp_path / "run", alone, {"exact": EXACT, "off": EXACT + 1})
    page = tmp_path / "page.html"
    assert run_program(main, [str(tmp_path / "run"), "--out", str(page)]) == 0
    head, _, _, exact, off, *rest = capsys.readouterr().out.splitlines()
    assert head.startswith("test: 12 items of 1 speaker; ")
    assert exact.split()[:4] == ["exact", "0.000", "-", "-"]
    assert off.split()[:4] == ["off", "1.000", "-", "+1.000"]
    assert "  no interval: 1 speaker, 6 are needed" in rest
    assert "no interval: 1 speaker, 6 are needed" in page.read_text()
