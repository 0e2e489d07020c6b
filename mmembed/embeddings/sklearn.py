"""Embeddings in scikit-learn: a transformer of clips, and a probe that weighs layers.

    clips = EmbeddingTransformer("demo/pretrain/encoder", part="layers", streams="audio+video")
    model = make_pipeline(clips, LayerWeightedProbe()).fit(paths, emotions)

Developing estimators: https://scikit-learn.org/stable/developers/develop.html
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from mmembed.batch import STREAMS, parse_subset
from mmembed.data.example import Example
from mmembed.embedder import Embedder
from mmembed.embedder.clip import Described
from mmembed.embedder.embedder import BATCH_SIZE
from mmembed.embedder.windows import batches
from mmembed.embeddings.read import PARTS
from mmembed.errors import DataError, UsageError
from mmembed.nn.transformer import LayerWeights

_FLOOR: Final = 1e-6  # a column that varies less is constant
_BLOCK: Final = 1024  # items that are in memory as float64


class EmbeddingTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Clips to vectors by a frozen encoder. Nothing is learned from the clips: `fit` loads it.

    Args:
        encoder: folder of the encoder.
        part: "pooled" for (N, W), "layers" for (N, L, W).
        streams: use no others than these, such as "audio+video".

    Attributes:
        embedder_: the encoder, after `fit`.
    """

    def __init__(
        self, encoder: str | Path, part: str = "pooled", streams: str = "+".join(STREAMS)
    ) -> None:
        self.encoder = encoder
        self.part = part
        self.streams = streams

    def fit(self, X: Sequence[Described | Example], y: object = None) -> Self:
        """Load the encoder.

        Raises:
            UsageError: there is no such part or stream.
            CorruptError: it is no usable encoder folder.
        """
        if self.part not in PARTS:
            raise UsageError(f"part {self.part!r}: one of {', '.join(PARTS)}")
        self._subset()
        self.embedder_ = Embedder.from_pretrained(self.encoder)
        return self

    def transform(self, X: Sequence[Described | Example]) -> NDArray[np.float32]:
        """Embed N clips: what `Embedder.read` takes, or `mmembed.data.example.Example`.

        Raises:
            DataError: naming the first clip that cannot be used or has none of the streams.
        """
        check_is_fitted(self)
        examples = self._read(X)
        parts = [
            getattr(self.embedder_.encode(batch), self.part)
            for batch in batches(examples, BATCH_SIZE)
        ]
        if not parts:
            raise UsageError("no clip was given")
        vectors: NDArray[np.float32] = torch.cat(parts).numpy()
        return vectors

    def _read(self, clips: Sequence[Described | Example]) -> Iterator[Example]:
        decoded = self.embedder_.read(
            [x for x in clips if not isinstance(x, Example)], self.streams
        )
        for clip in clips:
            example = clip.only(self._subset()) if isinstance(clip, Example) else next(decoded)
            if not example.streams:
                raise DataError(example.key, "no_streams", f"has none of {self.streams}")
            yield example

    def _subset(self) -> tuple[str, ...]:
        try:
            return parse_subset(self.streams)
        except ValueError as error:
            raise UsageError(f"streams: {error}") from None


class LayerWeightedProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A linear classifier of a learned weighted sum of layers, as in SUPERB.

    One softmax over the layers, one linear layer on their sum, cross-entropy (Yang et al. 2021,
    arXiv 2105.01051). Unlike there each layer is standardised by the training items, so that
    weights do not just mirror scales, and both parts are fitted by L-BFGS on all items from zero
    weights: nothing is drawn by chance, the same items give the same probe.

    Args:
        alpha: of the squared weights of the linear layer, beside the mean cross-entropy.
        max_iter: iterations of L-BFGS at most.

    Attributes:
        classes_: (C,).
        layer_weights_: (L,) positive, summing to 1.
        n_iter_: iterations it took.
    """

    def __init__(self, alpha: float = 1e-3, max_iter: int = 200) -> None:
        self.alpha = alpha
        self.max_iter = max_iter

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:
        """Learn from (N, L, W) vectors, or (N, W) of one layer, and N classes, two or more."""
        vectors, targets = validate_data(self, X, y, allow_nd=True, dtype=np.float32)
        check_classification_targets(targets)
        self.classes_, numbers = np.unique(targets, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("a classifier needs two classes, the training items have one class")
        layers = _layers(vectors)
        self.mean_, scale = layers.mean(0), layers.std(0)
        self.scale_ = np.where(scale > _FLOOR, scale, 1).astype(np.float32)
        _, count, width = layers.shape
        self._model = _WeightedLinear(count, width, len(self.classes_))
        self.n_iter_ = self._model.fit(self._standard(layers), torch.from_numpy(numbers),
                                       self.alpha, self.max_iter)  # fmt: skip
        self.layer_weights_ = self._model.layers.weights.detach().numpy()
        return self

    @torch.no_grad()
    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """(N, C) probabilities; in float64, so that an item's do not depend on the others."""
        check_is_fitted(self)
        vectors = validate_data(self, X, reset=False, allow_nd=True, dtype=np.float32)
        layers = _layers(vectors)
        if layers.shape[1:] != self.mean_.shape:
            raise ValueError(f"items are {layers.shape[1:]}, those fitted {self.mean_.shape}")
        model = copy.deepcopy(self._model).double()
        parts = torch.split(self._standard(layers), _BLOCK)
        answers: Tensor = torch.cat([model(part.double()) for part in parts])
        probabilities: NDArray[np.float64] = answers.softmax(1).numpy()
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """(N,) the most probable classes."""
        answers = self.predict_proba(X)
        classes: NDArray[Any] = self.classes_[answers.argmax(1)]
        return classes

    def _standard(self, layers: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy((layers - self.mean_) / self.scale_)


class _WeightedLinear(nn.Module):
    def __init__(self, layers: int, width: int, classes: int) -> None:
        super().__init__()
        self.layers = LayerWeights(layers)
        self.weight = nn.Parameter(torch.zeros(classes, width))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, layers: Tensor) -> Tensor:
        """(N, L, W) -> (N, C)."""
        return nn.functional.linear(self.layers(layers), self.weight, self.bias)

    def fit(self, layers: Tensor, targets: Tensor, alpha: float, max_iter: int) -> int:
        """Returns the number of iterations."""
        optimiser = torch.optim.LBFGS(
            self.parameters(), max_iter=max_iter, line_search_fn="strong_wolfe"
        )

        @torch.enable_grad()
        def closure() -> Tensor:
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(self(layers), targets)
            loss = loss + alpha * self.weight.square().sum()
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        iterations: int = optimiser.state[next(self.parameters())]["n_iter"]
        return iterations


def _layers(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, L, W) of (N, L, W), or of (N, W)."""
    if vectors.ndim not in (2, 3):
        raise ValueError(f"items are (N, L, W) or (N, W), found {vectors.shape}")
    return vectors if vectors.ndim == 3 else vectors[:, None]
