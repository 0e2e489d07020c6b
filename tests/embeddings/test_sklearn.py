"""The transformer and the probe as scikit-learn wants them, and against what is known."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.prepared import example
from helpers.support import small_encoder_config
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from mmembed.embedder import Embedder, save_encoder
from mmembed.embeddings.sklearn import EmbeddingTransformer, LayerWeightedProbe
from mmembed.encoder import Encoder
from mmembed.errors import CorruptError, DataError, UsageError
from mmembed.features.text import Vocabulary


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    vocabulary = Vocabulary.train(["good morning so it goes", "come back soon no"], 20, "char")
    torch.manual_seed(0)
    config = small_encoder_config()
    config = type(config)(**{**vars(config), "vocabulary_size": len(vocabulary)})
    save_encoder(folder, Encoder(config), vocabulary, {"name": "made"})
    return folder


def test_vectors_are_those_of_the_encoder(encoder: Path) -> None:
    clips = [example(n) for n in range(18)]  # more than one batch
    whole = Embedder.from_pretrained(encoder).encode(clips)
    pooled = EmbeddingTransformer(encoder).fit_transform(clips)
    np.testing.assert_allclose(pooled, whole.pooled.numpy(), atol=1e-5)
    layers = EmbeddingTransformer(encoder, part="layers").fit_transform(clips[:3])
    np.testing.assert_allclose(layers, whole.layers[:3].numpy(), atol=1e-5)


def test_streams_are_chosen(encoder: Path) -> None:
    clips = [example(0), example(1)]
    expected = Embedder.from_pretrained(encoder).encode([clip.only(("audio",)) for clip in clips])
    found = EmbeddingTransformer(encoder, streams="audio").fit_transform(clips)
    np.testing.assert_array_equal(found, expected.pooled.numpy())


def test_it_clones_pickles_and_works_in_a_pipeline(encoder: Path, tmp_path: Path) -> None:
    """Paths of real files in, classes out."""
    paths = []
    for number, level in enumerate((0.3, 0.003, 0.3, 0.003)):
        noise = np.random.default_rng(number).standard_normal(4_000) * level
        soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
        paths.append(str(tmp_path / f"{number}.wav"))
    transformer = EmbeddingTransformer(str(encoder), part="layers", streams="audio")
    assert clone(transformer).get_params() == transformer.get_params()
    model = clone(make_pipeline(transformer, LayerWeightedProbe())).fit(paths, list("lqlq"))
    assert model.predict(paths).tolist() == list("lqlq")
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(paths), model.predict_proba(paths))


def test_what_cannot_be_embedded_is_one_line(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="part 'words': one of pooled, layers"):
        EmbeddingTransformer(encoder, part="words").fit([])
    with pytest.raises(UsageError, match="streams: "):
        EmbeddingTransformer(encoder, streams="smell").fit([])
    with pytest.raises(CorruptError, match="not an encoder folder"):
        EmbeddingTransformer(tmp_path).fit([])
    fitted = EmbeddingTransformer(encoder, streams="text").fit([])
    with pytest.raises(DataError, match="clip-0: has none of text"):
        fitted.transform([example(0, text=None)])
    with pytest.raises(DataError, match="gone"):
        EmbeddingTransformer(encoder).fit([]).transform([tmp_path / "gone.wav"])
    with pytest.raises(UsageError, match="no clip was given"):
        fitted.transform([])


@parametrize_with_checks([LayerWeightedProbe()])
def test_the_probe_passes_the_checks_of_scikit_learn(estimator, check) -> None:
    check(estimator)


def make(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """120 items of 5 layers, 6 wide: only layer 3 knows the three classes."""
    draw = np.random.default_rng(seed)
    classes = np.arange(120) % 3
    layers = draw.standard_normal((120, 5, 6)) * [[100], [1], [1], [0.01], [1]]
    layers[:, 3, :3] += 0.04 * np.eye(3)[classes]
    return layers.astype(np.float32), np.array(["a", "b", "c"])[classes]


def test_the_probe_finds_the_layer_that_knows() -> None:
    """Though it is ten thousand times smaller than another."""
    layers, classes = make(0)
    probe = LayerWeightedProbe(alpha=0.01).fit(layers, classes)
    assert probe.layer_weights_.sum() == pytest.approx(1)
    assert probe.layer_weights_.argmax() == 3 and probe.layer_weights_[3] > 0.8
    assert probe.score(*make(1)) > 0.9
    answers = probe.predict_proba(layers)
    np.testing.assert_allclose(answers.sum(1), 1)
    assert (probe.classes_[answers.argmax(1)] == probe.predict(layers)).all()


def test_of_one_layer_it_is_a_logistic_regression() -> None:
    """scikit-learn's objective: C times the sum of losses + |w|^2 / 2, so C = 1 / (2 alpha N)."""
    layers, classes = make(2)
    one = layers[:, 3]
    reference = make_pipeline(
        StandardScaler(), LogisticRegression(C=1 / (2 * 0.01 * len(one)), tol=1e-8, max_iter=1000)
    ).fit(one, classes)
    probe = LayerWeightedProbe(alpha=0.01).fit(one, classes)
    np.testing.assert_allclose(probe.predict_proba(one), reference.predict_proba(one), atol=2e-3)


def test_the_same_items_give_the_same_probe() -> None:
    layers, classes = make(0)
    first, second = (LayerWeightedProbe().fit(layers, classes) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(layers), second.predict_proba(layers))


def test_items_of_another_shape_are_refused() -> None:
    layers, classes = make(0)
    probe = LayerWeightedProbe().fit(layers, classes)
    with pytest.raises(ValueError, match=r"items are \(5, 4\), those fitted \(5, 6\)"):
        probe.predict(layers[:, :, :4])
    with pytest.raises(ValueError, match=r"\(N, L, W\) or \(N, W\)"):
        LayerWeightedProbe().fit(layers[..., None], classes)
