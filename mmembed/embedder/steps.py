"""All layers of a clip at every step, for training what stands on top of a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.batch import ClipInputs
from mmembed.data.example import LONGEST, Example
from mmembed.embedder.embedder import Embedder
from mmembed.errors import UsageError
from mmembed.pretrained_encoder import PretrainedEncoder


def check_steps(embedder: Embedder) -> None:
    """Refuse, with a UsageError, an encoder whose layers have different steps."""
    encoder = embedder.encoder
    if not isinstance(encoder, PretrainedEncoder) or len(encoder.reads) > 1:
        raise UsageError(
            "steps: all layers at every step are those of a pretrained encoder of one stream; name "
            "it alone, --encoder NAME"
        )


@torch.no_grad()
def encode_steps(
    embedder: Embedder, examples: Sequence[Example], inputs: ClipInputs | None = None
) -> list[NDArray[np.float32]]:
    """(T, L + 1, D) of each example, see `check_steps`; the arguments are those of
    `Embedder.hidden`.

    Raises:
        UsageError: an example is longer than 300 s.
    """
    if long := [example.key for example in examples if example.is_long]:
        raise UsageError(f"{long[0]}: steps are those of clips of at most {LONGEST:.0f} s")
    layers = embedder.hidden(examples, inputs).layers.values()
    each = zip(*(layer.split() for layer in layers), strict=True)
    return [torch.stack(item, 1).float().cpu().numpy() for item in each]
