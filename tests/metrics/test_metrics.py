"""Scores against numbers worked by hand and against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from mmembed.metrics.bootstrap import MIN_GROUPS, Interval, bootstrap_interval, percentile_interval
from mmembed.metrics.classes import accuracy, unweighted_average_recall, weighted_f1
from mmembed.metrics.sentiment import (
    SENTIMENT_METRICS,
    SIMS_METRICS,
    best_constant,
    emotion_scores,
    majority_emotion_scores,
    pearson,
)
from mmembed.metrics.speech import character_error_rate, word_error_rate

labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


def test_word_error_rate_divides_all_errors_by_all_reference_words() -> None:
    references = ["the cat sat down", "a"]
    hypotheses = ["the hat sat", "a b"]  # 1 substituted, 1 deleted, 1 inserted; 5 words
    assert word_error_rate(references, hypotheses) == pytest.approx(3 / 5)
    assert word_error_rate(["a b"], [""]) == 1.0
    assert word_error_rate(["a"], ["x y z"]) == 3.0


def test_character_error_rate_counts_spaces() -> None:
    assert character_error_rate(["ab cd"], ["abcd"]) == pytest.approx(1 / 5)


def test_pearson() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 50))
    assert pearson(x, x + y) == pytest.approx(np.corrcoef(x, x + y)[0, 1])
    assert pearson(x, -2 * x + 5) == pytest.approx(-1)
    assert pearson(x, np.full(50, 0.1)) == 0.0
    assert pearson([1.0], [2.0]) == 0.0
    third = np.float32(0.3)
    rounded = np.where(np.arange(50) % 3, third, np.nextafter(third, np.float32(1)))
    assert pearson(x, rounded) == 0.0  # an answer to all, with other last digits
    assert pearson(x, 1e-9 * x) == pytest.approx(1)  # small, but it varies


@given(labels)
def test_classification_agrees_with_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    assert accuracy(truth, predicted) == pytest.approx(accuracy_score(truth, predicted))
    assert weighted_f1(truth, predicted) == pytest.approx(
        f1_score(truth, predicted, average="weighted", zero_division=0)
    )
    recalls = [np.mean(predicted[truth == c] == c) for c in set(truth.tolist())]
    assert unweighted_average_recall(truth, predicted) == pytest.approx(np.mean(recalls))


def sentiment_scores(truth: list[float], predicted: list[float]) -> dict[str, float]:
    x, y = np.array(truth), np.array(predicted)
    return {name: metric(x, y) for name, metric in SENTIMENT_METRICS.items()}


def test_sentiment_scores_by_hand() -> None:
    truth = [-3.0, -1.0, 0.0, 1.0, 2.0]
    predicted = [-5.0, 0.5, -0.5, 1.5, 2.5]
    scores = sentiment_scores(truth, predicted)
    assert scores["mae"] == pytest.approx((2 + 1.5 + 0.5 + 0.5 + 0.5) / 5)  # -5 is not clipped
    assert scores["correlation"] == pytest.approx(np.corrcoef(truth, predicted)[0, 1])
    assert scores["acc2_nonneg"] == pytest.approx(3 / 5)
    assert scores["f1_nonneg"] == pytest.approx(0.4 * 0.5 + 0.6 * 2 / 3)
    assert scores["acc2_pos"] == pytest.approx(3 / 4)
    assert scores["f1_pos"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 0.8)
    # rounded: -3 0 -0 2 2 against -3 -1 0 1 2 (1.5 and 2.5 both go to 2, -0.5 to 0)
    assert scores["acc7"] == pytest.approx(3 / 5)
    # in five classes -2 0 0 2 2 against -2 -1 0 1 2: both 2.5 and -3, -5 are cut
    assert scores["acc5_rounded"] == pytest.approx(3 / 5)
    cut = sentiment_scores([3.0, 2.0, -2.4], [1.6, 2.9, -3.0])
    assert cut["acc5_rounded"] == 1 and cut["acc7"] == 0


def test_sentiment_scores_at_the_edges() -> None:
    constant = sentiment_scores([1.0, -1.0], [0.2, 0.2])
    assert constant["correlation"] == 0.0
    neutral = sentiment_scores([0.0, 0.0], [0.1, -0.1])
    assert math.isnan(neutral["acc2_pos"]) and neutral["acc2_nonneg"] == 0.5
    for metric in (pearson, accuracy, weighted_f1, unweighted_average_recall):
        with pytest.raises(ValueError, match="no items"):
            metric([], [])
        with pytest.raises(ValueError, match="differ in shape"):
            metric([1.0], [1.0, 2.0])


def test_scores_of_sims_by_hand() -> None:
    """By MMSA's bounds, each of which belongs to the class below it; both sides are clipped."""
    truth = np.float32([-1.0, -0.8, -0.2, 0.0, 0.1, 0.6, 0.7, 1.0])
    predicted = np.array([-1.5, -0.5, -0.1, 0.05, 0.4, 0.2, 0.8, 3.0])
    scores = {name: score(truth, predicted) for name, score in SIMS_METRICS.items()}
    # negative up to 0: the first four against the first three and none else
    assert scores["acc2"] == pytest.approx(7 / 8)
    assert scores["weighted_f1"] == pytest.approx(0.5 * 6 / 7 + 0.5 * 8 / 9)
    # three classes: 0 0 0 1 1 2 2 2 against 0 0 0 1 2 2 2 2
    assert scores["acc3"] == pytest.approx(7 / 8)
    # five: 0 0 1 2 2 3 3 4 against 0 1 1 2 3 3 4 4
    assert scores["acc5"] == pytest.approx(5 / 8)
    clipped = np.clip(predicted, -1, 1)
    assert scores["mae"] == pytest.approx(np.abs(clipped - truth).mean())
    assert scores["correlation"] == pytest.approx(np.corrcoef(clipped, truth)[0, 1])


def test_scores_of_sims_against_bins() -> None:
    """Cut by pandas-like bins of numpy, which know nothing of our classes."""
    draw = np.random.default_rng(3)
    truth, predicted = draw.uniform(-1, 1, (2, 300)) * [[1], [1.4]]
    for name, inner in (("acc2", [0]), ("acc3", [-0.1, 0.1]), ("acc5", [-0.7, -0.1, 0.1, 0.7])):
        bins = np.array([-1.01, *inner, 1.01])
        cells = [np.histogram2d(x, y, [bins, bins])[0] for x, y in [(truth, predicted.clip(-1, 1))]]
        assert SIMS_METRICS[name](truth, predicted) == pytest.approx(np.trace(cells[0]) / 300)


def test_constants_of_sims() -> None:
    train = np.float32([0.0, -0.2, -0.4, 0.8])
    constants = {name: best_constant(train, name) for name in SIMS_METRICS}
    assert constants["mae"] == pytest.approx(0.05)
    assert constants["acc2"] == -1 and constants["acc3"] == -1 and constants["acc5"] == -0.4


def test_emotion_scores_agree_with_the_published_formula_and_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    truth = np.maximum(rng.normal(size=(60, 2)), 0)
    predicted = truth + rng.normal(size=(60, 2))
    for e, threshold in enumerate((0.3, 0.7)):
        scores = emotion_scores(truth[:, e], predicted[:, e], threshold)
        present, found = truth[:, e] > 0, predicted[:, e] > threshold
        tp, tn = (present & found).sum(), (~present & ~found).sum()
        p, n = present.sum(), (~present).sum()
        assert scores["wa"] == pytest.approx((tp * n / p + tn) / (2 * n))
        assert scores["wa"] == pytest.approx(balanced_accuracy_score(present, found))
        assert scores["f1"] == pytest.approx(f1_score(present, found, average="weighted"))


def test_emotion_scores_without_any_present_item() -> None:
    scores = emotion_scores(np.zeros(4), [0.0, 0.0, 0.0, 1.0], 0.5)
    assert scores["wa"] == pytest.approx(3 / 4)
    with pytest.raises(ValueError, match="differ in shape"):
        emotion_scores(np.zeros(4), np.zeros(5), 0.5)


def test_constant_baselines() -> None:
    train, test = [1.0, 1.0, 1.0, -3.0, 0.0], [1.0, -1.0, 2.0, 0.0]
    constants = {name: best_constant(train, name) for name in SENTIMENT_METRICS}

    def score(name: str) -> float:
        return sentiment_scores(test, [constants[name]] * 4)[name]

    assert score("mae") == pytest.approx((1 + 1 + 2 + 0) / 4)  # the training mean is 0
    assert score("correlation") == 0.0
    assert score("acc2_nonneg") == pytest.approx(3 / 4)
    assert score("acc2_pos") == pytest.approx(2 / 3)
    assert score("acc7") == pytest.approx(1 / 4)  # always 1, not the rounded mean
    scores = majority_emotion_scores([1, 1, 0], [1, 0])
    assert scores == {"wa": 0.5, "f1": pytest.approx(0.5 * 2 / 3)}
    assert majority_emotion_scores([0, 0, 1], [0, 0]) == {"wa": 1.0, "f1": 1.0}


def test_bootstrap_draws_whole_groups() -> None:
    groups = [*"aaabbbbbcdef"]
    seen: set[tuple[int, ...]] = set()

    def statistic(items: np.ndarray) -> float:
        seen.add(tuple(items.tolist()))
        return float(len(items))

    sizes = {"a": 3, "b": 5, "c": 1, "d": 1, "e": 1, "f": 1}
    interval = bootstrap_interval(statistic, groups, draws=200)
    members = {name: tuple(n for n, g in enumerate(groups) if g == name) for name in sizes}
    generator, expected = np.random.default_rng(0), []
    for _ in range(200):
        drawn = generator.integers(6, size=6)
        expected.append(sum((members["abcdef"[place]] for place in drawn), ()))
    assert seen == {*expected}
    sizes_drawn = [len(one) for one in expected]
    assert interval == Interval(*np.quantile(sizes_drawn, [0.025, 0.975]))


def test_no_interval_of_too_few_groups() -> None:
    """Of five groups that all agree, .0625 is the smallest two-sided p."""
    assert 2 / 2**MIN_GROUPS < 0.05 < 2 / 2 ** (MIN_GROUPS - 1)

    def never(items: np.ndarray) -> float:
        raise AssertionError("nothing is drawn")

    one = bootstrap_interval(never, ["a"] * 9, kind="speaker")
    assert one == Interval(None, None, "no interval: 1 speaker, 6 are needed")
    five = bootstrap_interval(never, [*"abcde"], kind="speaker or dialogue")
    assert five.note == "no interval: 5 speakers or dialogues, 6 are needed"
    counted = np.array([True] * 5 + [False])
    assert bootstrap_interval(never, [*"abcdef"], counted=counted).low is None
    assert bootstrap_interval(lambda rows: 1.0, [*"abcdef"]) == Interval(1.0, 1.0)


def test_draws_without_a_score_are_left_out_and_told() -> None:
    some = percentile_interval(np.array([0.0, 1.0, *[np.nan] * 2]))
    assert (some.low, some.high) == pytest.approx((0.025, 0.975))
    assert some.note == "2 of 4 draws have no score and are left out"
    most = percentile_interval(np.array([0.0, np.nan, np.nan]))
    assert most == Interval(None, None, "no interval: 2 of 3 draws have no score")
    assert percentile_interval(np.array([*[0.5] * 200, np.nan])).note == ""


def test_bootstrap_interval_covers_the_known_spread_of_a_mean() -> None:
    values = np.random.default_rng(2).normal(size=400)
    found = bootstrap_interval(lambda i: float(values[i].mean()), range(400))
    low, high = found.low, found.high
    assert low is not None and high is not None
    width = 2 * 1.96 * values.std() / math.sqrt(400)
    assert high - low == pytest.approx(width, rel=0.1)
    assert low < values.mean() < high
    again = bootstrap_interval(lambda i: float(values[i].mean()), range(400))
    assert again == found
    assert bootstrap_interval(len, []).note == "no interval: 0 groups, 6 are needed"
