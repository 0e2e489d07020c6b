"""Any emotion of a clip: emotion words as queries that attend to its frames.

After the idea of Demux (Chochlakis et al. 2023, arXiv 2210.15842), where emotion words are an input
beside a text and one head, shared by all of them, reads each. Here the words meet the frames of any
stream, those of our audio-visual-text encoder among them, by cross attention. With q_e the vector
of emotion e from any text backbone, and F_b the frames of clip b, each stream standardised by its
training frames, normalised, projected and marked with a vector of its own,

    z_be = Block(P q_e / |q_e|; F_b)          logit_be = w tanh(V z_be + v) + c
    loss = sum over labelled clips of the mean over e of BCE(sigmoid(logit_be), emotions_be > 0)

where e runs over the emotions that the clip is labelled for (context "label_mask"), so that
corpora of different label sets train together.

The set of emotions is an input: `score` takes any words. Emotions do not see each other, so what is
said of one depends neither on the order nor on the others that are asked for.

Frames have no order of their own here (all at position 0): the encoder has put time into them. Each
clip has one more, learned frame, which is all that a clip without any stream is answered from.

Deviations from Demux: no text encoder is trained, the words stay fixed vectors; no attention among
emotions; plain BCE, without its losses on label correlations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import Batch, Packed, Padded, precise
from mmembed.method import Method
from mmembed.nn.transformer import Block
from mmembed.settings.methods import EmotionQueriesConfig


class Standard(nn.Module):
    """Items of any number of times S steps, each of the S standardised by itself.

    Args:
        steps: S.
        width: of a step.
    """

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.mean = nn.Buffer(torch.zeros(steps, width))
        self.scale = nn.Buffer(torch.ones(steps, width))

    def forward(self, values: Tensor) -> Tensor:
        """(N, W), N a multiple of S."""
        whole = values.view(-1, *self.mean.shape)
        return ((whole - self.mean) / self.scale).view_as(values)


class EmotionQueries(Method):
    """See the module's docstring."""

    terms: ClassVar[dict[str, str]] = {"emotions": "emotions"}

    def __init__(self, config: EmotionQueriesConfig) -> None:
        super().__init__()
        self.config = config
        self.weights = {"emotions": 1.0}
        width = config.width
        self.queries = nn.Buffer(torch.zeros(config.num_emotions, config.query_width))
        self.project_query = nn.Linear(config.query_width, width)
        steps = config.steps or (1,) * len(config.streams)
        self.standard = nn.ModuleDict(
            {
                stream: Standard(*sizes)
                for stream, *sizes in zip(config.streams, steps, config.widths, strict=True)
            }
        )
        self.project = nn.ModuleDict()
        for stream, size in zip(config.streams, config.widths, strict=True):
            self.project[stream] = nn.Sequential(nn.LayerNorm(size), nn.Linear(size, width))
        self.marks = nn.ParameterDict(
            {stream: nn.Parameter(0.02 * torch.randn(width)) for stream in config.streams}
        )
        self.always = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(
            Block(width, config.num_heads, config.dropout, cross=True)
            for _ in range(config.num_blocks)
        )
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.Tanh(), nn.Dropout(config.dropout), nn.Linear(width, 1)
        )

    def ask_by(self, queries: Tensor) -> None:
        """Set the vectors (E, D_q) of the training set's emotions; part of the model from then."""
        if queries.shape != self.queries.shape:
            raise ValueError(
                f"queries {tuple(queries.shape)}: the configuration says "
                f"{tuple(self.queries.shape)}; ask for other emotions with `score`"
            )
        self.queries.copy_(queries)

    def standardise_by(self, stream: str, vectors: Tensor) -> None:
        """Set mean and scale of a stream from training vectors (N, S, W)."""
        standard = self.standard[stream]
        assert isinstance(standard, Standard)
        standard.mean.copy_(vectors.mean(0))
        standard.scale.copy_(vectors.std(0, unbiased=False).clamp(min=1e-3))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sum over labelled items; of each the mean over the emotions it is labelled for."""
        if not batch.count("emotions"):
            return {}
        emotions = batch.targets["emotions"]
        known = batch.labelled("emotions")
        logits = precise(self.score(batch, self.queries)[known])
        present = (emotions[known] > 0).to(logits.dtype)
        errors = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
        label_mask = batch.context.get("label_mask", torch.ones_like(emotions, dtype=torch.bool))
        weights = label_mask[known].to(logits)
        means = (errors * weights).sum(1) / weights.sum(1).clamp(min=1)
        return {"emotions": means.sum()}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Emotions: (B, E) logits of the training set's emotions; above 0 = present."""
        return {"emotions": self.score(batch, self.queries)}

    def score(self, batch: Batch, queries: Tensor) -> Tensor:
        """(B, E) logits of any emotions, given as vectors (E, D_q) of their words."""
        frames = self._frames(batch.inputs, len(batch))
        projected = self.project_query(F.normalize(queries.to(self.always.dtype)))
        lengths = torch.full((len(batch),), len(queries))
        x = Packed(projected.repeat(len(batch), 1), lengths)
        here, there = x.values.new_zeros(len(x.values)), x.values.new_zeros(len(frames.values))
        for block in self.blocks:
            x = block(x, here, frames, there)
        logits: Tensor = self.head(x.values)
        return logits.view(len(batch), len(queries))

    def _frames(self, inputs: Mapping[str, Packed | Padded], size: int) -> Packed:
        """The frames (N, D) of all streams of each item, one item after another."""
        parts, items = [self.always.expand(size, -1)], [torch.arange(size)]
        for stream, project in self.project.items():
            if stream in inputs and bool(inputs[stream].lengths.any()):
                packed = inputs[stream].pack()
                standard = self.standard[stream](packed.values.to(self.always.dtype))
                parts.append(project(standard) + self.marks[stream])
                items.append(packed.item_index().cpu())
        item = torch.cat(items)
        order = item.argsort(stable=True).to(self.always.device)
        return Packed(torch.cat(parts)[order], item.bincount(minlength=size))
