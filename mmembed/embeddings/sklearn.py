"""Embeddings in scikit-learn: a transformer of clips, in front of any of its estimators.

    clips = EmbeddingTransformer("demo/pretrain/encoder", part="layers", streams="audio+video")
    model = make_pipeline(clips, StandardScaler(), RidgeClassifierCV()).fit(paths, emotions)

Developing estimators: https://scikit-learn.org/stable/developers/develop.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from mmembed.data.example import Example, batches
from mmembed.embedder import Embedder
from mmembed.embedder.clip import Described, parse_streams
from mmembed.embeddings.read import PARTS
from mmembed.errors import DataError, UsageError
from mmembed.streams import STREAMS


class EmbeddingTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Clips to vectors by a frozen encoder. Nothing is learned from the clips: `fit` loads it.

    Args:
        encoder: folder of the encoder.
        part: "pooled" for (N, W), "layers" for (N, L W), all layers side by side.
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
        parse_streams(self.streams)
        self.embedder_ = Embedder.from_pretrained(self.encoder)
        return self

    def transform(self, X: Sequence[Described | Example]) -> NDArray[np.float32]:
        """Embed N clips: what `Embedder.read` takes, or `mmembed.data.example.Example`.

        Raises:
            DataError: naming the first clip that cannot be used or has none of the streams.
        """
        check_is_fitted(self)
        examples = self._read(X)
        parts = [getattr(self.embedder_.encode(batch), self.part) for batch in batches(examples)]
        if not parts:
            raise UsageError("no clip was given")
        vectors: NDArray[np.float32] = torch.cat(parts).flatten(1).numpy()
        return vectors

    def _read(self, clips: Sequence[Described | Example]) -> Iterator[Example]:
        decoded = self.embedder_.read(
            [x for x in clips if not isinstance(x, Example)], self.streams
        )
        wanted = parse_streams(self.streams)
        for clip in clips:
            example = clip.only(wanted) if isinstance(clip, Example) else next(decoded)
            if not example.streams:
                raise DataError(example.key, "no_streams", f"has none of {self.streams}")
            yield example
