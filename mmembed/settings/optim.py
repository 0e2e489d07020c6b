"""Settings of the optimiser."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

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
            have none.
        clip: Largest allowed norm of the whole gradient.
    """

    lr: Positive = 1e-3
    backbone_lr: Positive = 5e-5
    warmup: Annotated[float, Within(0, 1)] = 0.1
    weight_decay: Weight = 0.01
    clip: Positive = 1.0
