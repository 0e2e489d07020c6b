"""The report of a study and the page of a comparison: whole, closed, and saying what was scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.page import HOSTILE, read_page
from helpers.studied import GROUPS, KEYS, TRUTH, fewer_draws, sentiment, write_run

from mmembed.config import read_json
from mmembed.errors import UsageError
from mmembed.io.json import write_json
from mmembed.report import write_report
from mmembed.report.compare import write_comparison
from mmembed.report.score_table import METRIC_NAMES
from mmembed.studies.compare import compare
from mmembed.studies.finished_runs import FinishedRun, read_runs
from mmembed.studies.scoring import METRICS, TestSet

RANDOM = np.random.default_rng(0)
TRUE = np.array(TRUTH, np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0] * 2)


@pytest.fixture(autouse=True)
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer_draws(monkeypatch)


@pytest.fixture
def sentiment_run(tmp_path: Path) -> Path:
    """Sentiment, two variants of which the second is exact, and a control."""
    variants = {"off": np.stack([TRUE + 1, TRUE + 2]), "exact": np.stack([TRUE, TRUE])}
    controls = {"untrained": (sentiment(), {"off": TRUE[None] - 3})}
    plain = {f"ridge {HOSTILE}": TRUE + 0.25}
    return write_run(tmp_path / "sentiment & <b>", sentiment(), variants, plain, controls)


@pytest.fixture
def class_run(tmp_path: Path) -> Path:
    """Two classes of hostile names, by one seed."""
    names = (HOSTILE, "calm")
    held = TestSet("classes", "uar", KEYS, GROUPS, LABELS, LABELS, names)
    logits = RANDOM.normal(size=(1, 12, 2)).astype(np.float32)
    return write_run(tmp_path / "classes", held, {"m": logits}, test="configuration")


def test_a_study_has_cards_scores_and_configuration(sentiment_run: Path) -> None:
    out = write_report(sentiment_run)
    assert out == sentiment_run / "report.html"
    page = read_page(out.read_text())
    assert page.sections == ["scores:-test", "configuration"]
    constant = np.abs(TRUE - 1 / 3).mean()
    assert f"0.000 MAE, test exact (best of 2); constant baseline {constant:.3f}" in page.text
    assert "40 training items dev 8, test 12" in page.text and "2 seeds" in page.text
    assert "12 items of 6 speakers" in page.text and "the lower the better" in page.text
    assert "Differences are to off" in page.text
    # mean, deviation, interval; difference, interval, p
    assert "off 1.500 \u00b1 0.500 1.500 to 1.500 \u2013 \u2013" in page.text
    assert "exact 0.000 \u00b1 0.000 0.000 to 0.000 -1.500 -1.500 to -1.500 0.010" in page.text
    assert "untrained, off 3.000 3.000 to 3.000 +1.500" in page.text
    assert f"ridge {HOSTILE} 0.250" in page.text
    assert "loop.epochs" in page.text and "sentiment & <b>" in page.text


def test_classes_have_their_f1(class_run: Path) -> None:
    page = read_page(write_report(class_run).read_text())
    run = FinishedRun.read(class_run)
    f1 = run.results["tests"]["configuration"]["variants"]["m"]["f1"]
    assert (
        f"F1 of each class m items with it of groups {HOSTILE} {f1[HOSTILE]:.3f} 6 12 6 "
        f"calm {f1['calm']:.3f} 6 12 6"
    ) in page.text
    assert "UAR, configuration m (one method); constant baseline 0.500" in page.text


def test_a_comparison_is_one_page(sentiment_run: Path, class_run: Path, tmp_path: Path) -> None:
    runs = read_runs([sentiment_run, class_run])
    out = write_comparison(runs, compare(runs), tmp_path / "new" / "page.html")
    page = read_page(out.read_text())
    assert "Comparison of sentiment & <b>, classes" in page.text
    assert "sentiment & <b>: exact" in page.text and "classes: m" in page.text
    assert "not compared with 'configuration' of classes: another task (classes)" in page.text
    again = write_comparison(runs, compare(runs), tmp_path / "again.html")
    assert again.read_bytes() == out.read_bytes()


def test_what_was_left_out_is_noted(sentiment_run: Path) -> None:
    results = read_json(sentiment_run / "results.json")
    write_json(sentiment_run / "results.json", {**results, "notes": [f"no audio: {HOSTILE}"]})
    page = read_page(write_report(sentiment_run).read_text())
    assert page.sections == ["scores:-test", "notes", "configuration"]
    assert f"no audio: {HOSTILE}" in page.text


def test_an_unfinished_study_is_refused(sentiment_run: Path) -> None:
    (sentiment_run / "results.json").unlink()
    with pytest.raises(UsageError, match="or of a finished `finetune`"):
        write_report(sentiment_run)


def test_every_measure_has_a_name() -> None:
    assert {name for measures in METRICS.values() for name in measures} <= {*METRIC_NAMES}
