"""Small heads trained on stored vectors, on the CPU; the same seed gives the same head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmembed.studies.embeddings_data import Rows
from mmembed.studies.probe import Names

BATCH: Final = 32
LEARNING_RATE: Final = 1e-4

Head = Callable[[Tensor, Tensor], Tensor]
"""Steps (B, T, W), zeros after the end, and lengths (B,) -> scores (B, C) of the classes."""


def train_and_predict(
    make: Callable[[int], nn.Module],
    steps: Sequence[Tensor],
    labels: Names,
    train: Rows,
    test: Rows,
    *,
    gradient_norm: float,
    epochs: int,
    seed: int,
) -> Names:
    """Train a head by cross entropy with Adam, at a constant rate, and use the last state.

    Args:
        make: from the number of classes to a `Head`.
        steps: of N clips, (T, W) each.
        labels: (N,) classes; the head tells all of them apart, trained or not.
        train: (n,) clips to learn from.
        test: (m,) clips to predict.
        gradient_norm: longer gradients are cut to this length.
        epochs: passes over `train`.
        seed: of the first weights and of the order of the clips.

    Returns:
        (m,) classes.
    """
    names, numbers = np.unique(labels, return_inverse=True)
    targets = torch.from_numpy(numbers.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make(len(names))
    optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE)
    rows = torch.from_numpy(train)
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for batch in torch.split(rows[order], BATCH):
            scores = head(*_padded(steps, batch))
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(scores, targets[batch])
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(head.parameters(), gradient_norm)
            optimizer.step()
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(test), BATCH)
        best = [head(*_padded(steps, batch)).argmax(1) for batch in batches]
    predicted: Names = names[torch.cat(best).numpy()]
    return predicted


def _padded(steps: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    chosen = [steps[row] for row in rows.tolist()]
    lengths = torch.tensor([len(one) for one in chosen])
    return pad_sequence(chosen, batch_first=True), lengths
