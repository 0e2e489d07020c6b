"""Small heads trained on stored vectors, on the CPU; the same seed gives the same head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from mmembed.io.progress import progress
from mmembed.studies.embeddings_data import Rows
from mmembed.studies.probe import Names

BATCH: Final = 32
LEARNING_RATE: Final = 1e-4

Head = Callable[[Tensor, Tensor], Tensor]
"""Steps (T, W) of B clips, one after another, and lengths (B,) -> scores (B, C) of the classes."""


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
    fold: str,
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
        fold: its name, beside the progress.

    Returns:
        (m,) classes.
    """
    names, numbers = np.unique(labels, return_inverse=True)
    targets = torch.from_numpy(numbers.astype(np.int64))
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = make(len(names))
    optimizer = torch.optim.Adam(head.parameters(), lr=LEARNING_RATE, fused=True)
    rows = torch.from_numpy(train)
    with progress(f"fold {fold}, epochs", epochs) as update:
        for epoch in range(epochs):
            order = torch.randperm(len(rows), generator=generator)
            for batch in torch.split(rows[order], BATCH):
                loss = nn.functional.cross_entropy(_scores(head, steps, batch), targets[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(head.parameters(), gradient_norm)
                optimizer.step()
            update(epoch + 1)
    with torch.inference_mode():
        batches = torch.split(torch.from_numpy(test), BATCH)
        best = [_scores(head, steps, batch).argmax(1) for batch in batches]
    predicted: Names = names[torch.cat(best).numpy()]
    return predicted


def _scores(head: nn.Module, steps: Sequence[Tensor], rows: Tensor) -> Tensor:
    """(B, C) of the clips in these rows (B,)."""
    clips = [steps[row] for row in rows.tolist()]
    scores: Tensor = head(torch.cat(clips), torch.tensor([len(clip) for clip in clips]))
    return scores
