"""CKA against its definition by double centring, and layers whose likeness is known."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.metrics.similarity import (
    covariance_similarity,
    layer_similarity,
    linear_cka,
    matched_means,
    most_similar_group,
)

RNG = np.random.default_rng(0)


def rotation(width: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(width).normal(size=(width, width)))[0]


def hsic(k: np.ndarray, m: np.ndarray) -> float:
    """tr(K H M H) / (n - 1)^2, H = I - 1/n: Gretton et al. 2005."""
    n = len(k)
    centre = np.eye(n) - 1 / n
    return float(np.trace(k @ centre @ m @ centre)) / (n - 1) ** 2


def test_cka_equals_the_hsic_form() -> None:
    for width in (1, 3, 30):
        x, y = RNG.normal(size=(12, 7)) + 2, RNG.normal(size=(12, width)) - 1
        k, m = x @ x.T, y @ y.T
        expected = hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))
        assert linear_cka(x, y) == pytest.approx(expected, rel=1e-9)


def test_cka_by_hand() -> None:
    """Of one feature a side, the squared correlation: x.y = 2, |x|^2 = 2, |y|^2 = 8: 4 / 16."""
    assert linear_cka([[1.0], [-1], [0]], [[1.0], [1], [-2]]) == 0
    assert linear_cka([[1.0], [-1], [0]], [[2.0], [0], [-2]]) == pytest.approx(0.25)


def test_cka_is_blind_to_rotation_scale_and_shift_only() -> None:
    x, y = RNG.normal(size=(20, 5)), RNG.normal(size=(20, 4))
    assert linear_cka(x, x @ rotation(5) * 3 + 7) == pytest.approx(1)
    assert linear_cka(x @ rotation(5), y) == pytest.approx(linear_cka(x, y))
    assert linear_cka(x, y) == pytest.approx(linear_cka(y, x))
    assert linear_cka(x, x * [10, 1, 1, 1, 1]) < 0.9  # not to scale of one feature
    assert linear_cka(x, RNG.permutation(x)) < 0.9  # rows are matched


def test_cka_of_noise_is_near_its_known_floor() -> None:
    """D / (n + D) in expectation: high for few items, near 0 for many."""
    for n, width in ((5000, 10), (50, 50)):
        found = linear_cka(RNG.normal(size=(n, width)), RNG.normal(size=(n, width)))
        assert found == pytest.approx(width / (n + width), rel=0.15)


def test_cka_lies_between_0_and_1_and_is_never_nan() -> None:
    for _ in range(50):
        n = int(RNG.integers(1, 5))
        x, y = RNG.normal(size=(n, 3)) * 1e4, RNG.normal(size=(n, 2)) * 1e-4
        assert 0 <= linear_cka(x, y) <= 1
    assert linear_cka(np.full((7, 2), 0.1), RNG.normal(size=(7, 2))) == 0


def test_what_does_not_vary_is_like_nothing() -> None:
    """Also where the mean of equal numbers is another number: 0.1 seven times."""
    constant, other = np.full((7, 2), 0.1), RNG.normal(size=(7, 2))
    assert covariance_similarity(constant, other) == 0
    assert layer_similarity(constant[:, None], other[:, None], linear_cka).tolist() == [[0.0]]


def test_cka_of_different_items_is_refused() -> None:
    with pytest.raises(ValueError, match="same n items"):
        linear_cka(np.ones((4, 2)), np.ones((5, 2)))


def test_covariance_similarity() -> None:
    """By hand: diag(2, 0) against diag(2/3, 2/3), the cosine of (1, 0) and (1, 1)."""
    one = np.array([[1.0, 5], [-1, 5]])  # covariance diag(2, 0)
    round_ = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]) + 3  # covariance 2/3 of the identity
    assert covariance_similarity(one, round_) == pytest.approx(np.sqrt(0.5))
    x = RNG.normal(size=(30, 4)) @ RNG.normal(size=(4, 4))
    assert covariance_similarity(x, RNG.permutation(x) * -3 + 1) == pytest.approx(1)
    assert covariance_similarity(one, [[5.0, 1], [5, -1]]) == 0
    assert covariance_similarity([[1.0], [2]], [[3.0], [5]]) == pytest.approx(1)


def known_layers(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Six layers of 8: content is common to both languages in layers 2 and 3, own elsewhere."""
    common = RNG.normal(size=(n, 8))
    source, target = RNG.normal(size=(2, n, 6, 8))
    for layer in (2, 3):
        source[:, layer] = common @ rotation(8) + 0.1 * source[:, layer]
        target[:, layer] = 2 * common + 5 + 0.1 * target[:, layer]
    return source, target


def test_layers_that_share_their_content_are_found() -> None:
    matrix = layer_similarity(*known_layers(400))
    inside = np.zeros((6, 6), bool)
    inside[2:4, 2:4] = True
    assert matrix[inside].min() > 0.95 and matrix[~inside].max() < 0.1
    assert most_similar_group(matrix, 2) == (2, 3)
    assert most_similar_group(matrix, 3) in {(1, 2, 3), (2, 3, 4)}
    assert most_similar_group(matrix, 6) == (0, 1, 2, 3, 4, 5)


def test_rows_are_source_layers() -> None:
    source, target = RNG.normal(size=(2, 300, 3, 4))
    target[:, 2] = source[:, 0]
    assert np.unravel_index(layer_similarity(source, target).argmax(), (3, 3)) == (0, 2)


def test_layers_of_unmatched_clips_are_compared_by_covariance() -> None:
    """Only layer 1 varies alike in both languages; no clip has a partner."""
    spread = np.array([[5, 5, 1, 1], [1, 2, 3, 4], [5, 1, 1, 1]])
    other = np.array([[1, 1, 5, 5], [1, 2, 3, 4], [1, 1, 1, 5]])
    source, target = RNG.normal(size=(900, 3, 4)) * spread, RNG.normal(size=(700, 3, 4)) * other
    matrix = layer_similarity(source, target, covariance_similarity)
    assert matrix[1, 1] > 0.98 and matrix[0, 0] < 0.2 and matrix[2, 2] < 0.2
    assert most_similar_group(matrix, 1) == (1,)


def test_the_group_is_a_whole_block_not_a_diagonal() -> None:
    matrix = np.array([[0.9, 0.0, 0.0], [0.0, 0.9, 0.7], [0.0, 0.7, 0.7]])
    assert most_similar_group(matrix, 2) == (1, 2)  # the diagonal alone would say (0, 1)
    for size in (0, 4):
        with pytest.raises(ValueError, match="a group of"):
            most_similar_group(matrix, size)


def test_matched_means() -> None:
    source = [("a", [1.0, 0]), ("i", [0.0, 2]), ("a", [3.0, 4]), ("u", [9.0, 9])]
    target = [("i", [5.0, 5]), ("y", [7.0, 7]), ("a", [1.0, 1])]
    names, x, y = matched_means(source, target)
    assert names == ["a", "i"]
    np.testing.assert_array_equal(x, [[2, 2], [0, 2]])
    np.testing.assert_array_equal(y, [[1, 1], [5, 5]])
    with pytest.raises(ValueError, match="two names"):
        matched_means(source, target[1:])


def test_vowels_choose_the_layer_in_which_they_are_spoken_alike() -> None:
    """Five vowels, many tokens, layers (L, D): only layer 1 holds the vowel in both languages."""
    vowels = {name: RNG.normal(size=(3, 6)) for name in "aeiou"}
    strange = {name: RNG.normal(size=(3, 6)) for name in "aeiou"}

    def tokens(own: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        found = []
        for name in "aeiou" * 30:
            vector = own[name].copy()
            vector[1] = vowels[name][1]
            found.append((name, vector + 0.3 * RNG.normal(size=(3, 6))))
        return found

    names, x, y = matched_means(tokens(vowels), tokens(strange))
    matrix = layer_similarity(x, y)
    assert names == list("aeiou") and x.shape == (5, 3, 6)
    assert matrix[1, 1] > 0.95 and matrix[1, 1] == matrix.max()
    assert most_similar_group(matrix, 1) == (1,)
