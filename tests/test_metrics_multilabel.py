"""Scores of several labels an item, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mmembed import metrics_multilabel as multilabel


def test_against_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    truth, found = draw.random((200, 6)) < 0.3, draw.random((200, 6)) < 0.4
    truth[:, 5] = found[:, 5] = False
    for average in ("macro", "micro"):
        ours = getattr(multilabel, f"{average}_f1")(truth, found)
        assert ours == pytest.approx(f1_score(truth, found, average=average, zero_division=0))
    each = f1_score(truth, found, average=None, zero_division=0)
    np.testing.assert_allclose(multilabel.label_f1(truth, found), each)


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
