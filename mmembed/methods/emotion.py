"""The small emotion regressor on frozen embeddings.

After Khare et al. 2020 (arXiv 2009.05019), who train a small network on the frozen embedding for
CMU-MOSEI. Input is the mean and standard deviation of every layer of the encoder; a learned
weighted sum of layers (as in SUPERB, Yang et al. 2021, arXiv 2105.01051) is followed by one
hidden layer and two linear heads: sentiment in [-3, 3] and six emotions in [0, 3].

    loss = squared error of sentiment + mean squared error of the emotions

Inputs are standardised with the mean and deviation of the training vectors, which are part of the
model. Deviation from the paper: its classifier's sizes are unknown; these are ours.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmembed.batch import Batch
from mmembed.losses import masked_squared_error
from mmembed.method import Method
from mmembed.nn.transformer import LayerWeights
from mmembed.settings.methods import EmotionConfig

NUM_EMOTIONS = 6


class EmotionRegressor(Method):
    """See the module's docstring."""

    terms: ClassVar[dict[str, str]] = {"sentiment": "sentiment", "emotions": "emotions"}

    def __init__(self, config: EmotionConfig) -> None:
        super().__init__()
        self.config = config
        self.weights = {"sentiment": config.sentiment_weight, "emotions": config.emotions_weight}
        self.mean = nn.Buffer(torch.zeros(config.layers, config.width))
        self.scale = nn.Buffer(torch.ones(config.layers, config.width))
        self.layers = LayerWeights(config.layers)
        self.project = nn.Parameter(torch.empty(config.layers, config.width, config.hidden))
        nn.init.normal_(self.project, std=config.width**-0.5)
        self.body = nn.Sequential(nn.GELU(), nn.Dropout(config.dropout))
        self.sentiment = nn.Linear(config.hidden, 1)
        self.emotions = nn.Linear(config.hidden, NUM_EMOTIONS)

    def standardise_by(self, vectors: Tensor) -> None:
        """Set mean and scale from training vectors (N, L, W)."""
        self.mean.copy_(vectors.mean(0))
        self.scale.copy_(vectors.std(0, unbiased=False).clamp(min=1e-3))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of squared errors over labelled items, means over an item's labelled emotions."""
        predicted = self.predict(batch)
        sums = {}
        for name in self.terms:
            target = batch.targets[name]
            label_mask = batch.context.get("label_mask")
            if name == "emotions" and label_mask is not None:
                target = target.masked_fill(~label_mask, torch.nan)
            sums[name] = masked_squared_error(predicted[name], target).sum()
        return sums

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Sentiment (B,), emotions (B, E); not clipped to their ranges."""
        vectors = batch.inputs["embedding"].pad().values
        standard = (vectors - self.mean) / self.scale
        # The weights scale the matrix: scaling its input would cost one more product backward.
        weighted = self.project * self.layers.weights[:, None, None]
        hidden = self.body(standard.flatten(1) @ weighted.flatten(0, 1))
        return {"sentiment": self.sentiment(hidden)[:, 0], "emotions": self.emotions(hidden)}
