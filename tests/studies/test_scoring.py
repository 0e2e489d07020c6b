"""Held-out truth: scores by hand, constant baselines, and predictions that come back as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score

from mmembed.errors import CorruptError
from mmembed.studies.results import TestPredictions
from mmembed.studies.scoring import METRICS, TestSet, sentiment_task

DRAW = np.random.default_rng(0)
KEYS = tuple(f"k{n}" for n in range(60))
GROUPS = tuple(f"g{n // 6}" for n in range(60))


def classes() -> TestSet:
    truth = DRAW.integers(0, 3, 60)
    return TestSet("classes", "uar", KEYS, GROUPS, truth, np.array([2, 2, 0]), ("a", "b", "c"))


def test_classes_against_scikit_learn() -> None:
    held, logits = classes(), DRAW.normal(size=(2, 60, 3)).astype(np.float32)
    scores = held.scores(logits)
    found = logits.argmax(2)
    assert scores["uar"]["mean"] == pytest.approx(
        np.mean([recall_score(held.truth, f, average="macro") for f in found])
    )
    assert scores["weighted_f1"]["mean"] == pytest.approx(
        np.mean([f1_score(held.truth, f, average="weighted") for f in found])
    )
    each = np.mean([f1_score(held.truth, f, average=None) for f in found], 0)
    assert scores["f1"] == pytest.approx(dict(zip("abc", each, strict=True)))
    assert scores["uar"]["low"] < scores["uar"]["mean"] < scores["uar"]["high"]
    assert "low" not in scores["accuracy"]


def test_trivial_answers() -> None:
    held = classes()
    assert held.constant("uar").argmax(1).tolist() == [2] * 60
    assert held.constant_scores()["uar"] == pytest.approx(1 / 3)
    train = np.array([1.0, 1.0, -3.0], np.float32)
    truth = np.array([2.0, -1.0], np.float32)
    felt = TestSet("sentiment", "mae", ("a", "b"), ("a", "b"), truth, train)
    assert felt.constant_scores()["acc2_pos"] == 0.5
    assert felt.constant_scores()["mae"] == pytest.approx((abs(2 + 1 / 3) + abs(-1 + 1 / 3)) / 2)
    chinese = TestSet(sentiment_task(1.0), "acc2", ("a", "b"), ("a", "b"), truth / 3, train / 3)
    assert chinese.constant_scores()["acc2"] == 0.5 and chinese.constant_scores()["acc3"] == 0.5
    assert set(chinese.scores(np.zeros((1, 2)))) == {*METRICS["sims"]}
    several = np.array([[1, 0], [1, 0], [1, 1]], np.float32)
    shown = TestSet("labels", "macro_f1", ("a",), ("a",), several[:1], several, ("x", "y"))
    assert shown.constant("jaccard").tolist() == [[1, 0]]
    assert shown.constant("macro_f1").tolist() == [[1, 1]]
    asked = TestSet("labels", "auroc", KEYS, GROUPS, np.tile(several[1:], (30, 1)), several)
    assert asked.constant_scores()["auroc"] == 0.5


def test_predictions_come_back(tmp_path: Path) -> None:
    held = classes()
    logits = DRAW.normal(size=(2, 60, 3)).astype(np.float32)
    TestPredictions(held, {"ours / a": logits}, {"constant": logits[:1]}).write(
        tmp_path / "p.safetensors"
    )
    back = TestPredictions.read(tmp_path / "p.safetensors")
    np.testing.assert_array_equal(back.variants["ours / a"], logits)
    assert (
        back.items.keys == KEYS and back.items.groups == GROUPS and back.items.names == held.names
    )
    assert back.items.scores(back.baselines["constant"]).keys() == held.scores(logits).keys()
    (tmp_path / "p.safetensors").write_bytes(b"no")
    with pytest.raises(CorruptError, match="no predictions"):
        TestPredictions.read(tmp_path / "p.safetensors")


def test_every_task_has_measures() -> None:
    assert set(METRICS) == {"sentiment", "sims", "classes", "labels"}


def test_each_figure_says_what_it_rests_on() -> None:
    truth = np.array([0.0, 1.0, -1.0, 0.0, 2.0, 0.0, 1.0, 0.0], np.float32)
    groups = tuple("aabbccdd")
    held = TestSet("sentiment", "mae", KEYS[:8], groups, truth, truth, grouping="dialogue")
    counts = held.counts()
    assert (counts["items"], counts["groups"], counts["grouping"]) == (8, 4, "dialogue")
    assert counts["counts"]["mae"] == {"items": 8, "groups": 4}
    assert counts["counts"]["acc2_pos"] == {"items": 4, "groups": 4}
    scores = held.scores(truth[None])
    assert scores["mae"]["note"] == "no interval: 4 dialogues, 6 are needed"
    zero = TestSet("sentiment", "mae", KEYS[:8], groups, truth * 0, truth)
    assert zero.counts()["counts"]["acc2_pos"] == {"items": 0, "groups": 0}
    assert zero.scores(truth[None])["acc2_pos"] == {"mean": None, "std": None}
    assert zero.constant_scores()["f1_pos"] is None
    assert next(zero.left_out()) == "acc2_pos, f1_pos: no item whose sentiment is not 0"
    assert TestSet("sentiment", "acc2_pos", KEYS[:8], groups, truth * 0, truth).undecided()


def test_labels_are_scored_where_they_are_known() -> None:
    """Half of one label is not known, one is nobody's, one is not known at all."""
    truth = (DRAW.random((60, 4)) < 0.5).astype(np.float32)
    truth[::2, 0], truth[:, 2], truth[:, 3] = np.nan, 0, np.nan
    likely = DRAW.random((1, 60, 4)).astype(np.float32)
    names = ("half", "all", "nobody", "unknown")
    held = TestSet("labels", "macro_f1", KEYS, GROUPS, truth, truth[:9], names, "speaker")
    scores = held.scores(likely)
    known = ~np.isnan(truth[:, 0])
    each = [
        f1_score(truth[known, 0], likely[0, known, 0] > 0.5),
        f1_score(truth[:, 1], likely[0, :, 1] > 0.5),
    ]
    assert scores["macro_f1"]["mean"] == pytest.approx(np.mean(each))
    assert scores["f1"] == {
        "half": pytest.approx(each[0]),
        "all": pytest.approx(each[1]),
        "nobody": None,
        "unknown": None,
    }
    labels = held.counts()["labels"]
    assert labels["half"]["items"] == 30 and labels["half"]["groups"] == 10
    assert labels["half"]["positives"] == int(np.nansum(truth[:, 0]))
    assert labels["unknown"] == {"items": 0, "positives": 0, "groups": 0, "train_positives": 0}
    assert held.counts()["notes"] == [
        "left out, as no test item has this label: nobody, unknown",
        "no training item has: nobody, unknown",
    ]


def test_what_groups_are_comes_back(tmp_path: Path) -> None:
    held = TestSet(**{**vars(classes()), "grouping": "speaker or dialogue"})
    TestPredictions(held, {}).write(tmp_path / "p.safetensors")
    assert TestPredictions.read(tmp_path / "p.safetensors").items.grouping == "speaker or dialogue"
