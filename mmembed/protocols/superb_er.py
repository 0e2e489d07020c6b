"""Emotion recognition as in SUPERB (Yang et al., Interspeech 2021): learned weights of layers.

A softmax over one number for each layer weighs the layers; their weighted sum, as mean over time,
goes through one linear map. (That of SUPERB is two linear maps with nothing between, and the mean
over time commutes with them.) Cross entropy, Adam at 1e-4, batches of 32, gradients cut to length
1, as in s3prl. Folds hold out whole speakers, as SUPERB holds out sessions of IEMOCAP: five, or one
speaker each where there are fewer. Accuracy is the mean over the folds.

Not followed: of its 30,000 steps SUPERB takes the one that is best on a fifth of the training
clips. Here all training clips are learned from, for as many whole epochs as make 30,000 steps, and
the last state is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from mmembed.errors import UsageError
from mmembed.protocols.heads import BATCH, train_and_predict
from mmembed.protocols.protocol import EmotionProtocol, TestedFold
from mmembed.studies.embeddings_data import EmbeddedClips
from mmembed.studies.probe import Names
from mmembed.studies.splits import group_folds

FOLDS: Final = 5
STEPS: Final = 30_000
GRADIENT_NORM: Final = 1.0


class LayerWeightedHead(nn.Module):
    """The weighted sum of layers, then Linear.

    Args:
        layers: L.
        width: D of each.
        classes: C.
    """

    def __init__(self, layers: int, width: int, classes: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))
        self.linear = nn.Linear(width, classes)

    def forward(self, layers: Tensor, lengths: Tensor) -> Tensor:
        """Scores (B, C) of the layers (B L, D) of clips, one after another."""
        layers = layers.view(len(lengths), len(self.weights), -1)
        scores: Tensor = self.linear(self.weights.softmax(0) @ layers)
        return scores


@dataclass(frozen=True)
class SuperbEr(EmotionProtocol):
    """See the module.

    Attributes:
        epochs: passes over the training clips; None = the fewest that make `STEPS`.
        seed: of the heads.
    """

    name = "superb-er"
    about = (
        f"emotion recognition as in SUPERB: learned weights of layers, Linear; {FOLDS} folds of "
        "speakers"
    )
    part = "layers"

    epochs: int | None = None
    seed: int = 0

    def folds(self, clips: EmbeddedClips, labels: Names) -> list[TestedFold]:
        """Five, or as many as there are speakers.

        Raises:
            UsageError: a speaker is not known, or there is one alone.
        """
        groups = clips.groups(range(len(clips)))
        if groups.kind != "speaker":
            unknown = sum(not (row.speaker or "").strip() for row in clips.utterances)
            raise UsageError(
                f"speakers cannot be kept apart: {unknown:,} of {len(clips):,} clips have none"
            )
        number = min(FOLDS, len({*groups.names}))
        if number < 2:
            raise UsageError("two speakers are needed at least, found 1")
        means = [one[:, : one.shape[1] // 2].contiguous() for one in clips.steps[""]]
        layers, width = means[0].shape
        folds = []
        for index, held_out in enumerate(group_folds(np.array(groups.names), number), start=1):
            train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
            predicted = train_and_predict(
                lambda classes: LayerWeightedHead(layers, width, classes),
                means,
                labels,
                train,
                test,
                gradient_norm=GRADIENT_NORM,
                epochs=self.epochs or ceil(STEPS / ceil(len(train) / BATCH)),
                seed=self.seed,
                fold=str(index),
            )
            folds.append(TestedFold(train, test, predicted, str(index)))
        return folds
