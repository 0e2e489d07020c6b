"""Scores of several labels an item, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from mmembed.metrics import multilabel


def test_against_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    truth, found = draw.random((200, 6)) < 0.3, draw.random((200, 6)) < 0.4
    truth[:, 5] = found[:, 5] = False
    for average in ("macro", "micro"):
        ours = getattr(multilabel, f"{average}_f1")(truth, found)
        assert ours == pytest.approx(f1_score(truth, found, average=average, zero_division=0))
    each = f1_score(truth, found, average=None, zero_division=0)
    np.testing.assert_allclose(multilabel.label_f1(truth, found), each)
    for neither, name in ((0, "macro_f1_neither_0"), (1, "macro_f1_neither_1")):
        theirs = f1_score(truth, found, average="macro", zero_division=neither)
        assert multilabel.METRICS[name](truth, found) == pytest.approx(theirs)


def test_a_label_on_neither_side_by_hand() -> None:
    """F1 of three labels: 1, on neither side, 0 since it is only predicted."""
    truth, found = [[1, 0, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 1]]
    assert multilabel.macro_f1(truth, found) == pytest.approx(1 / 3)
    assert multilabel.macro_f1_neither_1(truth, found) == pytest.approx(2 / 3)
    assert multilabel.label_f1(truth, found, 1.0).tolist() == [1, 1, 0]


def test_jaccard_by_hand() -> None:
    truth = [[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    found = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert multilabel.jaccard(truth, found) == pytest.approx((1 / 3 + 1 + 0 + 1) / 4)
    with pytest.raises(ValueError, match="need one shape"):
        multilabel.jaccard([[1, 0]], [[1]])


def test_the_best_constants() -> None:
    truth = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1], [1, 0, 0]], bool)
    assert multilabel.best_constant(truth, "macro_f1").tolist() == [True, True, True]
    assert multilabel.best_constant(truth, "jaccard").tolist() == [True, False, False]


def test_areas_against_scikit_learn() -> None:
    """With ties, with what is not known, and where a label has one side alone."""
    draw = np.random.default_rng(0)
    truth = (draw.random((80, 4)) < 0.3).astype(float)
    scores = np.round(draw.normal(size=(80, 4)) + truth, 1)
    truth[draw.random((80, 4)) < 0.2] = np.nan
    truth[:, 3] = 0
    known = ~np.isnan(truth)
    each = [roc_auc_score(truth[known[:, e], e], scores[known[:, e], e]) for e in range(3)]
    np.testing.assert_allclose(multilabel.label_auroc(truth, scores), [*each, np.nan])
    assert multilabel.auroc(truth, scores) == pytest.approx(np.mean(each))
    assert np.isnan(multilabel.auroc(truth[:, 3:], scores[:, 3:]))
    assert multilabel.auroc(truth, np.zeros_like(scores)) == 0.5


def test_what_is_not_known_counts_nowhere() -> None:
    """As if each label were scored on its known items alone."""
    draw = np.random.default_rng(1)
    truth, found = (draw.random((60, 3)) < 0.4).astype(float), draw.random((60, 3)) < 0.5
    truth[draw.random((60, 3)) < 0.3] = np.nan
    known = ~np.isnan(truth)
    each = [f1_score(truth[known[:, e], e], found[known[:, e], e]) for e in range(3)]
    np.testing.assert_allclose(multilabel.label_f1(truth, found), each)
    flat = f1_score(truth[known], found[known])
    assert multilabel.micro_f1(truth, found) == pytest.approx(flat)
    assert multilabel.best_constant([[1, np.nan], [0, 0], [0, 1]], "macro_f1").tolist() == [1, 1]


def test_items_and_labels_without_any_known_are_left_out() -> None:
    truth = np.array([[1, 0, np.nan], [np.nan] * 3, [0, 1, np.nan]])
    found = np.array([[1, 1, 1], [0, 0, 0], [0, 1, 1]], bool)
    assert multilabel.jaccard(truth, found) == pytest.approx((1 / 2 + 1) / 2)
    assert multilabel.macro_f1(truth, found) == pytest.approx((1 + 2 / 3) / 2)
    nothing = np.full((2, 2), np.nan)
    assert np.isnan(multilabel.macro_f1(nothing, nothing > 0))
    assert np.isnan(multilabel.jaccard(nothing, nothing > 0))
    assert not multilabel.best_constant(nothing, "macro_f1").any()
