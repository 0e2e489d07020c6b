"""Self-MM: sentiment from several streams, whose own labels the training makes up by itself.

Paper: Yu, Xu, Yuan, Wu, "Learning Modality-Specific Representations with Self-Supervised Multi-Task
Learning for Multimodal Sentiment Analysis", AAAI 2021, arXiv 2102.04830. Only the sentiment y_m of
an item is known. Each stream s has a head of its own and a label y_s, which the unimodal label
generation module (ULGM) derives from y_m and from where the item lies among all training items:

    loss    = sum over items of |score_m - y_m| + sum over s of tanh(|y_s - y_m|) * |score_s - y_s|
    alpha_i = (d- - d+) / (d+ + 1e-8), d+ and d- the distances from F_i to the centres: the means of
              F_i over all training items whose label y_i is > 0, < 0; i = m or a stream
    u_s     = (alpha_s / (alpha_m + 1e-8) * y_m + y_m + alpha_s - alpha_m) / 2, clamped to [-H, H]
    y_s    := y_m in epoch 1, then (n - 1) / (n + 1) * y_s + 2 / (n + 1) * u_s in epoch n

The loss of a step sees the labels as they were before it. After the step its items get new labels
by the centres as they were before it, then their features are kept. y_m never changes.

Deviations from paper and released code (github.com/thuiar/Self-MM, MMSA):
- Text comes as features, or as the tokens of a text encoder that is trained with all else, as in
  the release (reading "tokens").
- Any streams, also one vector an item, and layers of this project's encoder. A stream that an item
  lacks enters the fusion as a learned vector, and has neither loss nor label for this item. The
  sums of all streams are divided by the number of labelled items, whether they have the stream.
- Labels and features change once an optimiser step, for the items of all its micro-batches and
  processes together; the release changes them after each batch, four to a step. The loss is the
  mean over the step; the release adds up the means of its batches.
- Centres are means over items seen so far. The release counts the others as zeros, which matters
  to no label: labels stand still until all have been seen.
- Where no item has a positive (or a negative) label there is no centre, and labels stay as they
  are; the release makes them NaN. A label of 0 is in neither class, as in the paper; the first
  release took it for positive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mmembed.backbones.text import TextEncoder
from mmembed.batch import Batch, Padded
from mmembed.config import Config, Count, Dropout, Weight, Width, Within
from mmembed.method import Gather, Method
from mmembed.nn.transformer import LayerWeights

FUSED = "fused"
TINY = 1e-8  # keeps quotients finite, as in the release


@dataclass(frozen=True)
class StreamConfig(Config):
    """One stream and the head on it.

    Attributes:
        name: an input of the batch: audio, video, text or embedding.
        width: D of its features.
        reading: how (B, T, D) becomes one vector an item: "lstm" its last state over the true
            length; "first" the first step, which BERT-like text keeps for the sentence; "mean" of
            all steps, for text without such a step; "vector" the only step there is (T = 1);
            "layers" a learned weighted sum of T layers of an encoder; "tokens" the last state of
            the first of T token ids, by the text encoder that `SelfMm` is given.
        hidden: units of the LSTM.
        out: width in the fusion, by dropout and a linear layer; 0 = what was read, as it is.
        dropout: before that layer.
        post: width of F_s.
        post_dropout: before the stream's head.
        layers: T of "layers".
    """

    name: str
    width: Count
    reading: Literal["lstm", "first", "mean", "vector", "layers", "tokens"] = "lstm"
    hidden: Width = 16
    out: Count = 0
    dropout: Dropout = 0.0
    post: Width = 32
    post_dropout: Dropout = 0.0
    layers: Count = 0


@dataclass(frozen=True)
class SelfMmConfig(Config):
    """Settings of the method. The defaults are MMSA's for CMU-MOSEI.

    Attributes:
        streams: in the order of the fusion.
        items: of the training set; 0 until it is known.
        fusion: width of F_m.
        fusion_dropout: before the fusion.
        limit: H, the largest absolute label; 3 (CH-SIMS 1).
        unimodal_weight: of the streams' own terms; 0 = the paper's multimodal-only ablation.
    """

    streams: tuple[StreamConfig, ...] = (
        StreamConfig("text", 768, "first"),
        StreamConfig("audio", 74, "lstm", hidden=16, out=16, post=16),
        StreamConfig("video", 35, "lstm", hidden=32, out=32),
    )
    items: Count = 0
    fusion: Width = 128
    fusion_dropout: Dropout = 0.1
    limit: Annotated[float, Within(0, 1e6, above=True)] = 3.0
    unimodal_weight: Weight = 1.0


class StreamReader(nn.Module):
    """(B, T, D) -> (B, width): one vector an item, a learned one where the stream is missing."""

    def __init__(self, config: StreamConfig, encoder: TextEncoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        recurrent = config.reading == "lstm"
        read = config.hidden if recurrent else config.width
        self.lstm = nn.LSTM(config.width, read, batch_first=True) if recurrent else None
        self.layers = LayerWeights(config.layers) if config.reading == "layers" else None
        self.out: nn.Module = nn.Identity()
        if config.out:
            self.out = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(read, config.out))
        self.width = config.out or read
        self.absent = nn.Parameter(torch.zeros(self.width))

    def forward(self, stream: Padded | None, size: int) -> tuple[Tensor, Tensor]:
        """(B, width), and (B,) bool: who has the stream. None = no item of the `size` has it."""
        vectors = self.absent.expand(size, -1)
        if stream is None or not stream.lengths.any():
            return vectors, torch.zeros(size, dtype=torch.bool, device=vectors.device)
        ids = self.encoder is not None
        if stream.values.shape[2:] != (() if ids else (self.config.width,)):
            wanted = "(items, tokens)" if ids else f"(items, steps, {self.config.width})"
            raise ValueError(
                f"{self.config.name} has shape {tuple(stream.values.shape)}, the configuration "
                f"wants {wanted}"
            )
        here = stream.lengths.nonzero()[:, 0]
        index = here.to(vectors.device)
        values = stream.values[index]
        some = Padded(values if ids else values.to(vectors.dtype), stream.lengths[here])
        read = self.out(self._read(some)).to(vectors.dtype)
        present = (stream.lengths > 0).to(vectors.device)
        return vectors.index_copy(0, index, read), present

    def _read(self, stream: Padded) -> Tensor:
        values, name = stream.values, self.config.name
        if self.encoder is not None:
            states: Tensor = self.encoder(stream.pack())[-1].pad().values
            return states[:, 0]
        if self.lstm is not None:
            packed = pack_padded_sequence(
                values, stream.lengths, batch_first=True, enforce_sorted=False
            )
            last: Tensor = self.lstm(packed)[1][0][0]
            return last
        if self.layers is not None:
            if values.shape[1] != self.config.layers:
                raise ValueError(
                    f"{name} has {values.shape[1]} layers, the configuration {self.config.layers}"
                )
            weighted: Tensor = self.layers(values)
            return weighted
        if self.config.reading == "mean":
            real = values.masked_fill(~stream.mask[..., None], 0)
            return real.sum(1) / stream.lengths.to(real)[:, None]
        if self.config.reading == "vector" and int(stream.lengths.max()) > 1:
            raise ValueError(
                f"{name} has up to {int(stream.lengths.max())} steps, reading 'vector' takes one; "
                "choose another reading"
            )
        return values[:, 0]


class Head(nn.Module):
    """Features F_i and the score they give."""

    def __init__(self, width: int, features: int, dropout: float) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, features), nn.ReLU())
        self.score = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, width) -> F_i (B, features), score (B,)."""
        features = self.features(x)
        return features, self.score(features)[:, 0]


@dataclass(frozen=True)
class Seen:
    """Labelled training items, as the forward passes of a step saw them; I = 1 + streams.

    Attributes:
        rows: (B,) int64 in the training set.
        sentiment: (B,) y_m.
        present: (B, I) bool, the fusion always.
        features: (B, W) F_i of all i, one beside the other.
    """

    rows: Tensor
    sentiment: Tensor
    present: Tensor
    features: Tensor

    @staticmethod
    def join(parts: Sequence[Seen]) -> Seen:
        """All parts in the order of rows; of a row that comes twice, the later one."""
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        rows, *others = map(torch.cat, columns)
        order = rows.argsort(stable=True)
        final = torch.ones_like(rows, dtype=torch.bool)
        final[:-1] = rows[order][1:] != rows[order][:-1]
        kept = order[final]
        return Seen(*(values[kept] for values in (rows, *others)))


class LabelBank(nn.Module):
    """ULGM: the labels and features of all training items, in buffers.

    Args:
        widths: of F_i, the fusion first, then the streams; I of them.
        items: N of the training set.
        limit: H.
    """

    def __init__(self, widths: Sequence[int], items: int, limit: float) -> None:
        super().__init__()
        self.widths, self.limit = list(widths), limit
        self.labels = nn.Buffer(torch.zeros(len(widths), items))
        self.seen = nn.Buffer(torch.zeros(len(widths), items, dtype=torch.bool))
        self.features = nn.Buffer(torch.zeros(items, sum(widths)))

    def current(self, rows: Tensor, sentiment: Tensor) -> Tensor:
        """(I, B) y_i of `rows` (B,); y_m where there is none yet, and for row -1."""
        known = self.seen[:, rows] & (rows >= 0)
        return torch.where(known, self.labels[:, rows], sentiment)

    @torch.no_grad()
    def update(self, step: Seen, epoch: int) -> None:
        """New labels for the items of a step by the centres as they stand, then new features."""
        labels = self.current(step.rows, step.sentiment)
        if epoch > 1:
            fused, *streams = self.closeness(step.features)
            for label, alpha in zip(labels[1:], streams, strict=True):
                made = generated_label(alpha, fused, step.sentiment, self.limit)
                mixed = (epoch - 1) / (epoch + 1) * label + 2 / (epoch + 1) * made
                label.copy_(torch.where(mixed.isnan(), label, mixed))  # NaN: an empty class
        for i, features in enumerate(torch.split(step.features, self.widths, 1)):
            here = step.present[:, i]
            rows = step.rows[here]
            self.labels[i, rows] = labels[i, here]
            self.seen[i, rows] = True
            self._of(i)[rows] = features[here]

    def closeness(self, features: Tensor) -> list[Tensor]:
        """Alpha_i (B,) for each i of F (B, W): above 0 nearer to the positive items."""
        result = []
        for i, part in enumerate(torch.split(features, self.widths, 1)):
            positive, negative = ((part - c).norm(dim=1) for c in self.centres(i))
            result.append((negative - positive) / (positive + TINY))
        return result

    def centres(self, i: int) -> tuple[Tensor, Tensor]:
        """Means of F_i over the items whose label is positive, negative; NaN without any."""
        labels, seen, features = self.labels[i], self.seen[i], self._of(i)
        return features[seen & (labels > 0)].mean(0), features[seen & (labels < 0)].mean(0)

    def _of(self, i: int) -> Tensor:
        """A view (N, D_i) of the features."""
        return torch.split(self.features, self.widths, 1)[i]


def generated_label(alpha: Tensor, fused: Tensor, sentiment: Tensor, limit: float) -> Tensor:
    """u_s (B,) from alpha_s, alpha_m and y_m, all (B,)."""
    by_ratio = alpha / (fused + TINY) * sentiment
    return ((by_ratio + sentiment + alpha - fused) / 2).clamp(-limit, limit)


class SelfMm(Method):
    """See the module's docstring. Training needs `row` in the context, and `start_epoch`.

    Args:
        config: settings.
        encoder: of the text, if it is read as "tokens"; becomes the method's own.
    """

    terms: ClassVar[dict[str, str]] = dict.fromkeys(
        (FUSED, "audio", "video", "text", "embedding"), "sentiment"
    )

    def __init__(self, config: SelfMmConfig, encoder: TextEncoder | None = None) -> None:
        super().__init__()
        names = [stream.name for stream in config.streams]
        if not names or len({FUSED, *names}) <= len(names) or not {*names} <= {*self.terms}:
            raise ValueError(f"streams {names}: name some of {[*self.terms][1:]}, each once")
        if config.items < 1:
            raise ValueError("items, the size of the training set, comes from the data first")
        self.config = config
        self.weights = dict.fromkeys(self.terms, 0.0)
        self.weights |= {FUSED: 1.0} | dict.fromkeys(names, config.unimodal_weight)
        if (encoder is not None) is not any(s.reading == "tokens" for s in config.streams):
            raise ValueError("a text encoder goes with a stream that is read as tokens")
        self.readers = nn.ModuleDict(
            {
                s.name: StreamReader(s, encoder if s.reading == "tokens" else None)
                for s in config.streams
            }
        )
        widths = {name: cast(StreamReader, reader).width for name, reader in self.readers.items()}
        self.heads = nn.ModuleDict(
            {FUSED: Head(sum(widths.values()), config.fusion, config.fusion_dropout)}
            | {s.name: Head(widths[s.name], s.post, s.post_dropout) for s in config.streams}
        )
        posts = [config.fusion, *(stream.post for stream in config.streams)]
        self.bank = LabelBank(posts, config.items, config.limit)
        self.epoch = nn.Buffer(torch.tensor(0))
        self._seen: list[Seen] = []

    def start_epoch(self, number: int) -> None:
        """Labels move from epoch 2 on."""
        self.epoch.fill_(number)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of the weighted absolute errors, over labelled items that have the stream."""
        if not batch.count("sentiment"):
            return {}
        target = batch.targets["sentiment"]
        labelled, rows = ~target.isnan(), self._rows(batch)
        sentiment = target.nan_to_num().to(self.bank.labels)
        features, scores, present = self._heads(batch)
        if self.training:
            kept = labelled & (rows >= 0)
            joined = torch.cat(list(features.values()), 1).detach().to(sentiment)
            self._seen.append(
                Seen(rows[kept], sentiment[kept], present.T[kept].contiguous(), joined[kept])
            )
        labels = self.bank.current(rows, sentiment)
        weights = (labels - sentiment).abs().tanh()
        weights[0] = 1
        errors = weights * (torch.stack(list(scores.values())).to(labels) - labels).abs()
        sums = errors.masked_fill(~(present & labelled), 0).sum(1)
        return dict(zip(scores, sums, strict=True))

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """Sentiment (B,), not clipped to its range."""
        return {"sentiment": self._heads(batch)[1][FUSED]}

    def after_step(self, applied: bool, gather: Gather) -> None:
        """Labels and features of the step's items; equal on all processes afterwards."""
        mine, self._seen = self._seen, []
        if not applied:
            return
        if int(self.epoch) < 1:
            raise ValueError("epoch 0: training calls start_epoch(1), start_epoch(2), ...")
        everyone = cast(list[list[Seen]], gather([_to(part, "cpu") for part in mine]))
        parts = [part for process in everyone for part in process]
        if parts:
            self.bank.update(_to(Seen.join(parts), self.epoch.device), int(self.epoch))

    def _rows(self, batch: Batch) -> Tensor:
        """(B,) int64 in the training set; -1 = not in it."""
        rows: Tensor | None = batch.context.get("row")
        if rows is None and self.training:
            raise ValueError("the batch has no context 'row': training needs the items' numbers")
        if rows is None:
            return torch.full((len(batch),), -1, device=self.epoch.device)
        if int(rows.max()) >= self.config.items:
            raise ValueError(
                f"row {int(rows.max())} of {self.config.items} items: set config.items"
            )
        return rows.to(self.epoch.device)

    def _heads(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
        """F_i (B, D_i) and scores (B,), the fusion first; and (I, B) bool: who has what."""
        inputs = batch.inputs
        read: Mapping[str, tuple[Tensor, Tensor]] = {
            name: reader(inputs[name].pad() if name in inputs else None, len(batch))
            for name, reader in self.readers.items()
        }
        vectors = {FUSED: torch.cat([vector for vector, _ in read.values()], 1)}
        vectors |= {name: vector for name, (vector, _) in read.items()}
        found = {name: head(vectors[name]) for name, head in self.heads.items()}
        here = [present for _, present in read.values()]
        return (
            {name: features for name, (features, _) in found.items()},
            {name: score for name, (_, score) in found.items()},
            torch.stack([torch.ones_like(here[0]), *here]),
        )


def _to(seen: Seen, device: torch.device | str) -> Seen:
    return Seen(*(value.to(device) for value in vars(seen).values()))
