"""Settings of the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from mmembed.config import Config, Weight, Within

Positive = Annotated[float, Within(0, math.inf, below=True, above=True)]


@dataclass(frozen=True)
class OptimConfig(Config):
    """Settings of the optimiser.

    Attributes:
        lr: Peak learning rate.
        backbone_lr: Peak learning rate of what is trained of pretrained front ends of our encoder.
        warmup: Fraction of training during which the learning rate rises from 0 to its peak.
        weight_decay: Weight decay of matrices. Vectors (biases, norms, missing-stream embeddings)
            have none; with "adam" they have it, too.
        clip: Largest allowed norm of the whole gradient; 0 allows any.
        kind: "adamw" takes the decay off the weights; "adam" adds it to the gradient (L2), as many
            published programs do.
        beta2: Decay of the mean of squared gradients.
        schedule: How the learning rate falls after the warm-up: along a "cosine" or a "linear" line
            to 0, or not at all ("constant").
    """

    lr: Positive = 1e-3
    backbone_lr: Positive = 5e-5
    warmup: Annotated[float, Within(0, 1)] = 0.1
    weight_decay: Weight = 0.01
    clip: Weight = 1.0
    kind: Literal["adamw", "adam"] = "adamw"
    beta2: Annotated[float, Within(0, 1, below=True)] = 0.98
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
