"""Demux and MEmo: emotions of a text, where the emotion words are part of what the model reads.

Papers: Chochlakis, Mahajan, Baruah, Burghardt, Lerman, Narayanan, "Leveraging Label Correlations in
a Multi-label Setting: a Case Study in Emotion", ICASSP 2023, arXiv 2210.15842; Chochlakis et al.,
"Using Emotion Embeddings to Transfer Knowledge Between Emotions, Languages, and Annotation
Formats", ICASSP 2023, arXiv 2211.00171. Formulas are from their released code
(github.com/gchochla/Demux-MEmo); the papers' texts were not at hand: in their spirit.

    Demux   "anger joy or trust" [separator] TEXT -> states; e_k = mean state of word k's tokens
            z_k = w . dropout(tanh(W e_k + b)) + v, one head for all emotions
            a cluster: e = mean over all tokens of its members, or z = max of its members' logits
    MEmo    "emotion [mask] in tweet TEXT" -> h = state of the mask; z = a head of h with one output
            for each emotion, or z_k = sum of the masked-language logits of the tokens of word k
    loss = (1 - c) * cross entropy + c * local + g * global      (mmembed.losses)

Pair losses are means over the pairs alone by default. In the released form (`local_form`,
`global_form`) they have its divisors and constants, by which c and g weigh less: see
`losses.released_intra`.

Deviations: with one absent label and several present ones the
release multiplies the inter loss by the mean of the weights, here each pair has its own; a space
that is a token by itself belongs to no emotion; several masks are averaged, not summed; emotion
words are frozen by putting them back before each pass, which comes to the same as after each step;
MEmo's third readout (a layer for each emotion before one head) and the cosine forms of the local
losses are left out.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmembed import losses
from mmembed.backbones.text import TextEncoder
from mmembed.batch import Batch, Packed, Padded, precise
from mmembed.config import Config, Count, Dropout, Weight, Within
from mmembed.features.emotion_words import members, wheel_correlation
from mmembed.method import Method

LOCAL = {
    "mean": {"inter": losses.inter, "intra": losses.intra, "complete": losses.complete},
    "released": {
        "inter": losses.inter,
        "intra": losses.released_intra,
        "complete": losses.released_complete,
    },
}
GLOBAL = {
    "mean": losses.embedding_correlation,
    "released": losses.released_embedding_correlation,
}


@dataclass(frozen=True)
class DemuxConfig(Config):
    """Settings of Demux, and those that MEmo shares.

    Attributes:
        emotions: of the training set, in the order of the labels; a cluster is written
            "hope or optimism".
        cluster: how the members of a cluster become one logit.
        local: the loss between pairs of labels of one item.
        local_weight: c in [0, 1]; 0 switches it off.
        local_pairs: how pairs are weighed: all alike, by correlation of the training labels, or by
            angles on Plutchik's wheel.
        local_form: "mean" over pairs, or as the "released" code has it (`losses.released_intra`).
        global_weight: g; 0 switches it off.
        global_pairs: the correlation that emotion embeddings are drawn to.
        global_form: likewise (`losses.released_embedding_correlation`).
        dropout: before the last layer of the head.
        frozen: ids of tokens whose word embeddings stay as they are.
    """

    emotions: tuple[str, ...] = ()
    cluster: Literal["mean", "max"] = "mean"
    local: Literal["inter", "intra", "complete"] = "intra"
    local_weight: Annotated[float, Within(0, 1)] = 0.2
    local_pairs: Literal["alike", "data", "wheel"] = "data"
    local_form: Literal["mean", "released"] = "mean"
    global_weight: Weight = 0.0
    global_pairs: Literal["data", "wheel"] = "data"
    global_form: Literal["mean", "released"] = "mean"
    dropout: Dropout = 0.1
    frozen: tuple[Count, ...] = ()


@dataclass(frozen=True)
class MemoConfig(DemuxConfig):
    """Settings of MEmo.

    Attributes:
        readout: a head of its own, or the backbone's masked-language head.
        word_ids: the tokens of each emotion (and of its synonyms), for the masked-language head.
    """

    readout: Literal["classifier", "words"] = "classifier"
    word_ids: tuple[tuple[Count, ...], ...] = ()


class PromptedMethod(Method):
    """What Demux and MEmo share: a text backbone, and losses of several labels.

    Batches have inputs "text" (B, T) token ids and context "token_label" (B, T), both made by
    `features.prompt`, and targets "emotions" (B, E) in [0, 1].
    """

    terms: ClassVar[dict[str, str]] = dict.fromkeys(("bce", "local", "global"), "emotions")

    def __init__(self, config: DemuxConfig, backbone: TextEncoder) -> None:
        super().__init__()
        if not config.emotions:
            raise ValueError("emotions come from the training data first")
        self.config = config
        self.weights = {
            "bce": 1 - config.local_weight,
            "local": config.local_weight,
            "global": config.global_weight,
        }
        self.emotions = config.emotions
        self.backbone = backbone
        size = len(config.emotions)
        # Of the training labels; NaN until it is known.
        self.correlation = nn.Buffer(torch.full((size, size), torch.nan))
        if "wheel" in (config.local_pairs, config.global_pairs):
            self.wheel = nn.Buffer(wheel_correlation(config.emotions), persistent=False)
        self.frozen_ids = nn.Buffer(torch.tensor(config.frozen, dtype=torch.int64))
        self.frozen_words = nn.Buffer(backbone.words.weight.detach()[self.frozen_ids])

    def correlate(self, labels: Tensor) -> None:
        """Set the correlation from the training labels (N, E)."""
        self.correlation.copy_(losses.label_correlation(labels))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over labelled items."""
        if not batch.count("emotions"):
            return {}
        target = batch.targets["emotions"]
        logits, embeddings = self.read(batch)
        if logits.shape != target.shape:
            raise ValueError(
                f"{target.shape[1]} labels an item, but the prompt asks {', '.join(self.emotions)}"
            )
        per_item = {"bce": losses.binary_cross_entropy(logits, target)}
        config = self.config
        if config.local_weight > 0:
            alike = config.local_pairs == "alike"
            affinity = None if alike else (self._rho(config.local_pairs) + 1) / 2
            per_item["local"] = LOCAL[config.local_form][config.local](logits, target, affinity)
        if config.global_weight > 0:
            assert embeddings is not None
            error = GLOBAL[config.global_form](embeddings, self._rho(config.global_pairs))
            per_item["global"] = error.masked_fill(target.isnan().any(1), 0)
        return {term: values.sum() for term, values in per_item.items()}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """emotions: (B, E) probabilities; above 0.5 is present."""
        return {"emotions": precise(self.read(batch)[0]).sigmoid()}

    @abstractmethod
    def read(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Logits (B, E), and emotion embeddings (B, E, D) where the method has them."""

    def states(self, batch: Batch) -> Packed:
        """(N, D) last hidden states of all tokens."""
        with torch.no_grad():
            self.backbone.words.weight[self.frozen_ids] = self.frozen_words
        layers: list[Packed] = self.backbone(batch.inputs["text"].pack())
        return layers[-1]

    def _head(self, outputs: int) -> nn.Sequential:
        width, dropout = self.backbone.width, nn.Dropout(self.config.dropout)
        return nn.Sequential(nn.Linear(width, width), nn.Tanh(), dropout, nn.Linear(width, outputs))

    def _rho(self, pairs: str) -> Tensor:
        if self.emotions != self.config.emotions:
            raise ValueError("trained on other emotions: nothing is known of these pairs")
        rho = self.correlation if pairs == "data" else self.wheel
        if rho.isnan().any():
            raise ValueError("call correlate with the training labels before training")
        return rho


def span_means(states: Packed, token_label: Padded, count: int) -> Tensor:
    """(B, count, D) mean of the states of each span of tokens; 0 for a span without any.

    Args:
        states: (N, D).
        token_label: (B, T) int64 in [-1, count), of the same lengths: the span of each token, -1 =
            of none.
        count: spans of an item.
    """
    labels = token_label.pack().values
    inside = labels >= 0
    values = precise(states.values)[inside]
    slot = (states.item_index() * count + labels)[inside]
    width = values.shape[1]
    total = values.new_zeros(len(states.lengths) * count, width).index_add(0, slot, values)
    number = torch.bincount(slot, minlength=len(total)).clamp(min=1)
    return (total / number[:, None]).view(-1, count, width)


class Demux(PromptedMethod):
    """See the module's docstring."""

    def __init__(self, config: DemuxConfig, backbone: TextEncoder) -> None:
        super().__init__(config, backbone)
        self.head = self._head(1)

    def ask(self, emotions: tuple[str, ...]) -> None:
        """Predict these emotions from now on, as prompts do that were made with them."""
        self.emotions = emotions

    def read(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `PromptedMethod`."""
        return self.classify(self.states(batch), batch.context["token_label"])

    def classify(self, states: Packed, token_label: Padded) -> tuple[Tensor, Tensor]:
        """Logits (B, E) and embeddings (B, E, D) from states (N, D) and the words of tokens."""
        sizes = torch.tensor([len(members(emotion)) for emotion in self.emotions])
        cluster = torch.arange(len(sizes)).repeat_interleave(sizes).to(token_label.values.device)
        inside = token_label.values.clamp(min=0, max=len(cluster) - 1)
        whole = torch.where(token_label.values >= 0, cluster[inside], -1)
        embeddings = span_means(states, Padded(whole, token_label.lengths), len(sizes))
        if self.config.cluster == "mean":
            logits: Tensor = self.head(embeddings)[..., 0]
            return logits, embeddings
        each = self.head(span_means(states, token_label, len(cluster)))[..., 0]
        best = [part.amax(1) for part in each.split(sizes.tolist(), 1)]
        return torch.stack(best, 1), embeddings


class Memo(PromptedMethod):
    """See the module's docstring."""

    terms: ClassVar[dict[str, str]] = dict.fromkeys(("bce", "local"), "emotions")

    def __init__(self, config: MemoConfig, backbone: TextEncoder) -> None:
        super().__init__(config, backbone)
        if config.global_weight > 0:
            raise ValueError("MEmo has no emotion embeddings: global_weight must be 0")
        self.word_ids = config.word_ids
        classifies = config.readout == "classifier"
        self.head = self._head(len(config.emotions)) if classifies else None
        if not classifies and len(config.word_ids) != len(config.emotions):
            raise ValueError(
                f"{len(config.word_ids)} word_ids for {len(config.emotions)} emotions: give the "
                "tokens of each"
            )

    def ask(self, emotions: tuple[str, ...], word_ids: tuple[tuple[int, ...], ...]) -> None:
        """Predict these emotions from now on; the masked-language head alone can."""
        if self.head is not None:
            raise ValueError("a classifier knows the emotions it was trained on, and no other")
        self.emotions, self.word_ids = emotions, word_ids

    def read(self, batch: Batch) -> tuple[Tensor, None]:
        """See `PromptedMethod`."""
        mask = span_means(self.states(batch), batch.context["token_label"], 1)[:, 0]
        if self.head is not None:
            logits: Tensor = self.head(mask)
            return logits, None
        words = self.backbone.vocabulary_logits(mask)
        return torch.stack([words[:, list(ids)].sum(1) for ids in self.word_ids], 1), None
