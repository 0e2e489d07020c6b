"""Baselines against scikit-learn's plain estimators, and how their strength is chosen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from mmembed.studies.baselines import STRENGTHS, best_on_dev, logistic_regression, ridge


@pytest.mark.parametrize("rows", [30, 300])
def test_the_dual_ridge_is_the_primal_one(rows: int) -> None:
    """With fewer rows than columns and with more; constant columns count for nothing."""
    random = np.random.default_rng(1)
    train, test = random.standard_normal((rows, 200)), random.standard_normal((20, 200))
    train[:, 150:] = test[:, 150:] = 3.0
    train[:, 150] += 1e-12 * random.standard_normal(rows)  # rounding of a constant
    scaler = StandardScaler().fit(train[:, :150])
    targets = random.standard_normal((rows, 3)) + np.arange(3)
    predicted = ridge((train, targets), test, [0.01, 1.0])
    for found, strength in zip(predicted, (0.01, 1.0), strict=True):
        plain = Ridge(alpha=strength * 150).fit(scaler.transform(train[:, :150]), targets)
        expected = plain.predict(scaler.transform(test[:, :150]))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_streams_count_alike_in_the_dual_ridge() -> None:
    """As columns do that are divided by the square root of how many their stream has."""
    random = np.random.default_rng(2)
    train, test = random.standard_normal((60, 93)), random.standard_normal((20, 93))
    train[:, 92] = test[:, 92] = 1.0  # counts for nothing
    targets = random.standard_normal((60, 3))
    (found,) = ridge((train, targets), test, [0.1], [90])
    scaler = StandardScaler().fit(train)
    share = 1 / np.sqrt(2 * np.repeat([90.0, 2, 1], [90, 2, 1]))
    plain = Ridge(alpha=0.1).fit(scaler.transform(train) * share, targets)
    np.testing.assert_allclose(found, plain.predict(scaler.transform(test) * share), atol=1e-6)


def test_constant_vectors_predict_the_mean() -> None:
    predicted = ridge((np.ones((4, 2)), np.array([[0.0], [1], [2], [3]])), np.ones((1, 2)), [1.0])
    np.testing.assert_allclose(predicted, 1.5)


def test_the_first_of_the_best_is_taken_and_the_middle_where_dev_cannot_tell() -> None:
    models = [LogisticRegression(C=c) for c in (0.1, 1.0, 10.0)]
    train = np.array([[0.0], [1], [2], [3]]), np.array([0, 0, 1, 1])
    assert best_on_dev(models, train, lambda model: -abs(model.C - 10)).C == 10
    assert best_on_dev(models, train, lambda model: 0).C == 0.1
    assert best_on_dev(models, train, None).C == 1


def test_a_logistic_regression_is_as_strong_as_dev_wants_it() -> None:
    random = np.random.default_rng(0)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        classes = random.integers(0, 3, count)
        return np.eye(3)[classes] + random.standard_normal((count, 3)), classes

    train, dev = drawn(90), drawn(300)
    scores = {c: LogisticRegression(C=c, max_iter=2000).fit(*train).score(*dev) for c in STRENGTHS}
    assert max(scores, key=lambda c: scores[c]) == logistic_regression(train, dev).C
    none = np.zeros((0, 3)), np.zeros(0, int)
    assert logistic_regression(train, none).C == 1e-2
    worst = logistic_regression(train, dev, lambda truth, found: -(truth == found).mean())
    assert min(scores, key=lambda c: scores[c]) == worst.C
