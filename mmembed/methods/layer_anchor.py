"""Speech emotion in a language without labels, by anchoring layers of a frozen encoder.

Paper: Upadhyay, Busso, Lee, "A Layer-Anchoring Strategy for Enhancing Cross-Lingual Speech Emotion
Recognition", 2024, arXiv 2407.04966. The emotions of a source language are known, those of a target
language are not. Layers in which both languages look alike are anchors: there the representations
of both are aligned (CORAL, Sun and Saenko 2016, arXiv 1607.01719) while emotion is learned from the
source. With x_l the standardised vector of layer l, and A the anchors,

    z_l = GELU(P_l x_l + b_l)                 p = softmax(W sum_l w_l z_l), sum_l w_l = 1
    loss = cross entropy of labelled items + weight * mean over l in A of CORAL(z_l)
    CORAL(z) = ||C_source - C_target||_F^2 / (4 D^2), C the covariance, divided by n - 1

Anchors are numbers of layers: none (source only), the last, chosen ones, or the group of adjacent
layers most alike across languages (`mmembed.metrics.similarity.most_similar_group`, on matched
vowels or sentences, or on covariances where nothing matches).

CORAL is a statistic of a micro-batch, not a sum over items (`Method.batch_terms`): its value times
the items whose language is known is counted by "language". So the loss holds the mean of the CORALs
of all micro-batches and processes, weighted by items. Cutting the same global batch into smaller
parts leaves the size of the term but adds sampling noise, about 1 / (2 n) for n items a language:
prefer one large micro-batch with both languages in it, which vectors are small enough for. A part
with less than two items of a language aligns nothing, gives 0, and is counted nevertheless.

A weakness of CORAL itself: a smaller z has a smaller CORAL, whatever the languages, and the
classifier can make up for it. In long training on few items the gap is shrunk rather than closed
(seen on made-up data: use weight decay, and dev clips to stop). A LayerNorm on z was tried against
this and hid the difference between languages from CORAL as well.

Deviations from the paper: representations are the mean and deviation of each layer of a frozen
encoder (its pooling is not known to us), so what is aligned is a learned projection of each
anchored layer, the layer itself being unable to move; where the vectors carry a gradient it passes
on to the backbone. Several anchors are averaged. Which similarity it used, its loss weight and the
sizes of its classifier are not known; these are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import Batch
from mmembed.config import Config, Count, Dropout, Width, Within
from mmembed.losses import class_cross_entropy, coral
from mmembed.method import Method
from mmembed.nn.transformer import LayerWeights


@dataclass(frozen=True)
class LayerAnchorConfig(Config):
    """Settings of the method. Layers are numbered from 0, or from -1 backwards.

    Attributes:
        layers: L of the embeddings; 0 until they are known.
        width: W of each layer's vector (twice the encoder's width); 0 until they are known.
        num_classes: C.
        reads: layers that the classifier sums with learned weights; none named = all.
        anchors: layers whose representations are aligned, among `reads`; none = source only.
        hidden: D of the projections.
        dropout: in front of the classifier.
        coral_weight: of the alignment. The paper's losses are said to end about equal. Where this
            took 1e5 (real speech, docs/results.md) nothing was learned any more: look at both terms
            and at dev.
    """

    layers: Count = 0
    width: Count = 0
    num_classes: Width = 4
    reads: tuple[int, ...] = ()
    anchors: tuple[int, ...] = (-1,)
    hidden: Width = 128
    dropout: Dropout = 0.1
    coral_weight: Annotated[float, Within(0, 1e12)] = 10.0


class LayerAnchor(Method):
    """See the module's docstring."""

    terms: ClassVar[dict[str, str]] = {"emotion": "emotion", "coral": "language"}
    batch_terms: ClassVar[frozenset[str]] = frozenset({"coral"})

    def __init__(self, config: LayerAnchorConfig) -> None:
        super().__init__()
        self.config = config
        self.reads = _numbered(config.reads or range(config.layers), config.layers)
        anchors = _numbered(config.anchors, config.layers)
        if not set(anchors) <= set(self.reads):
            raise ValueError(
                f"anchors {anchors} are not all among the layers that are read, {self.reads}: "
                "what is aligned must reach the classifier"
            )
        self.anchors = [self.reads.index(layer) for layer in anchors]  # places among `reads`
        self.weights = {"emotion": 1.0, "coral": config.coral_weight if anchors else 0.0}
        self.mean = nn.Buffer(torch.zeros(config.layers, config.width))
        self.scale = nn.Buffer(torch.ones(config.layers, config.width))
        self.project = nn.Parameter(torch.empty(len(self.reads), config.width, config.hidden))
        nn.init.normal_(self.project, std=config.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(len(self.reads), config.hidden))
        self.layers = LayerWeights(len(self.reads))
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(config.hidden, config.num_classes)

    def standardise_by(self, vectors: Tensor) -> None:
        """Set mean and scale from training vectors (N, L, W), best of both languages."""
        self.mean.copy_(vectors.mean(0))
        self.scale.copy_(vectors.std(0, unbiased=False).clamp(min=1e-3))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sum of the cross entropy over labelled items; CORAL times the items of known language."""
        represented = self._represent(batch)
        sums = {}
        if batch.count("emotion"):
            logits = self._classify(represented)
            sums["emotion"] = class_cross_entropy(logits, batch.targets["emotion"]).sum()
        if self.anchors and batch.count("language"):
            language = batch.context["language"]
            source, target = represented[language == 0], represented[language > 0]
            gaps = [coral(source[:, place], target[:, place]) for place in self.anchors]
            sums["coral"] = batch.count("language") * torch.stack(gaps).mean()
        return sums

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Emotion: (B, C) logits; needs no language."""
        return {"emotion": self._classify(self._represent(batch))}

    def _represent(self, batch: Batch) -> Tensor:
        """(B, L, W) -> (B, R, D): z of every layer that is read."""
        standard = (batch.inputs["embedding"].pad().values - self.mean) / self.scale
        read = standard[:, self.reads]
        return F.gelu(torch.einsum("blw,lwd->bld", read, self.project) + self.bias)

    def _classify(self, represented: Tensor) -> Tensor:
        logits: Tensor = self.classes(self.dropout(self.layers(represented)))
        return logits


def _numbered(chosen: Sequence[int], layers: int) -> list[int]:
    """The chosen layers from 0 on, ascending, each once."""
    wrong = [layer for layer in chosen if not -layers <= layer < layers]
    if wrong:
        raise ValueError(f"layers {wrong}: there are {layers}, name -{layers} to {layers - 1}")
    return sorted({layer % layers for layer in chosen})
