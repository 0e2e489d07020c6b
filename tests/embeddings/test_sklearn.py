"""The transformer in front of estimators of scikit-learn, and against what is known."""

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

from mmembed.embedder import Embedder, save_encoder
from mmembed.embeddings.sklearn import EmbeddingTransformer
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
    np.testing.assert_allclose(layers, whole.layers[:3].flatten(1).numpy(), atol=1e-5)


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
    model = clone(make_pipeline(transformer, StandardScaler(), LogisticRegression())).fit(
        paths, list("lqlq")
    )
    assert model.predict(paths).tolist() == list("lqlq")
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(paths), model.predict_proba(paths))


def test_what_cannot_be_embedded_is_one_line(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="part 'words': one of pooled, layers"):
        EmbeddingTransformer(encoder, part="words").fit([])
    with pytest.raises(UsageError, match="streams 'smell': "):
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
