"""SDT: transformers within and between streams, with self-distillation, for turns of dialogues.

Paper: Ma, Wang, Lin, Zhang, Zhang, Xu, "A Transformer-Based Model With Self-Distillation for
Multimodal Emotion Recognition in Conversations", IEEE TMM 2023, arXiv 2310.20494. An item is a
dialogue, a step a turn, a stream gives one vector a turn. For every stream s and pair x -> y:

    U_s   = dropout(W_s u_s + sinusoids(position) + speaker embedding), drawn anew for each pair
    A_xy  = U_y + dropout(attention(query U_y, keys and values U_x)), 8 heads
    H_xy  = A_xy + feed-forward(LayerNorm(A_xy)), width -> width -> width, GELU by tanh
    G_xy  = sigmoid(W_xy H_xy) * H_xy                           unimodal gate; "identity": W_xy = I
    H_y   = linear of G_xy for all x, side by side
    H     = sum_y softmax_y(W H_y) * H_y, per dimension         multimodal gate, W shared
    loss  = CE(head(H)) + sum_y CE(head_y(H_y)) + sum_y KL(softmax(head(H) / tau) ||
            softmax(head_y(H_y) / tau)), no factor tau^2

All loss terms are sums over labelled turns, divided by the number of labelled turns. With class
weights the released code divides cross entropies by the batch's sum of weights instead; then one
turn's gradient would depend on its batch mates. Weights that average one over the training turns,
as `balanced_weights` makes them, keep the released balance of cross entropy and divergence.

Beyond the paper: any streams; any number of speakers, 0 for no speaker embedding; no limit of
turns. A stream may be missing: of a dialogue (length 0), or of a turn (its vector is all zeros).
What is missing is neither query nor key, stands as zeros in the linear of G_xy, takes no part in
the multimodal gate and has no loss; a turn without any stream is classified by the head's bias. The
released code reads a vector of zeros like any other, and its model has 19,456 parameters more
that never learn: a LayerNorm in each pair, which one layer does not use, and the speaker embedding
of padding. Its teacher is not detached, though self-distillation usually is; `detach_teacher` does
it, and is off by default, like everything the published figures come from.

Whom a speaker number means is not the paper's by default: our batches number the speakers of a
dialogue by their first turn (`mmembed.studies.sdt_data`), so that a number says who speaks again
and nothing of who it is. The release takes its numbers from its pickles: on IEMOCAP they are the
gender (0 = M, 1 = F), the same in all dialogues (our `--speakers gender`), on MELD up to nine of a
dialogue in an order of their own. Only with the gender is what speakers are worth comparable with
the paper's figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmembed.batch import UNLABELLED, Batch, Packed, Padded
from mmembed.losses import class_cross_entropy, divergence
from mmembed.method import Method
from mmembed.settings.methods import SDTConfig


def balanced_weights(fractions: Sequence[float]) -> tuple[float, ...]:
    """Class weights 1 / fraction, scaled to average 1 over the turns they were counted on.

    Args:
        fractions: fraction, or number, of the training turns of each class; positive.
    """
    return tuple(sum(fractions) / (len(fractions) * fraction) for fraction in fractions)


@dataclass(frozen=True)
class Explanation:
    """What a prediction was made of: for each dialogue of the batch one tensor.

    Attributes:
        attention: "audio_to_text" -> (H, T, T): how much each text turn (row) takes of each audio
            turn (column). Rows sum to 1; 0 where either turn is missing.
        unimodal: "audio_to_text" -> (T, D) gates in (0, 1) of what text took of audio; 0 likewise.
        multimodal: stream -> (T, D) gates in [0, 1], which sum to 1 over the streams of a turn; 0
            where the stream is missing.
    """

    attention: dict[str, tuple[Tensor, ...]]
    unimodal: dict[str, tuple[Tensor, ...]]
    multimodal: dict[str, tuple[Tensor, ...]]


@dataclass(frozen=True)
class _Output:
    """The outputs of one pass over the N turns of the batch and S streams of the config."""

    turns: Tensor  # (B,) of each dialogue
    present: Tensor  # (S, N) bool
    fused: Tensor  # (N, C) logits
    streams: Tensor  # (S, N, C) logits, of no meaning where the stream is missing
    attention: dict[str, tuple[Tensor, ...]]  # (H, Tq, Tk), of turns that are there
    unimodal: dict[str, Tensor]  # (Nq, D), of turns that are there
    multimodal: Tensor  # (S, N, D)


class PairEncoder(nn.Module):
    """One x -> y encoder and its gate; intra-modal when x is y."""

    def __init__(self, config: SDTConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = config.num_heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6),
            nn.Linear(width, width),
            nn.GELU("tanh"),
            nn.Dropout(config.dropout),
            nn.Linear(width, width),
            nn.Dropout(config.dropout),
        )
        learned = config.unimodal_gate == "learned"
        self.gate = nn.Linear(width, width, bias=False) if learned else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, query: Packed, source: Packed) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Let the turns of y (Nq, D) read those of x (Nk, D), each dialogue its own.

        Returns:
            (Nq, D) gated output; (Nq, D) gate; attention (H, Tq, Tk) of each dialogue. The first
            two are zeros in dialogues whose source is empty.
        """
        state = self.dropout(query.values)
        read = state if source is query else self.dropout(source.values)
        queries = self.query(state).unflatten(-1, (self.num_heads, -1))
        keys, values = self.key_value(read).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        attention, attended = [], []
        for q, k, v in zip(
            torch.split(queries, query.lengths.tolist()),
            torch.split(keys, source.lengths.tolist()),
            torch.split(values, source.lengths.tolist()),
            strict=True,
        ):
            scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
            attention.append(scores.softmax(-1))
            attended.append(torch.einsum("hqk,khd->qhd", self.dropout(attention[-1]), v))
        state = state + self.dropout(self.out(torch.cat(attended).flatten(1)))
        state = state + self.feed_forward(state)
        there = (source.lengths > 0).repeat_interleave(query.lengths).to(state.device)
        gate = self.gate(state).sigmoid() * there[:, None]
        return gate * state, gate, tuple(attention)


class SDT(Method):
    """See the module's docstring.

    Inputs: each stream Padded (B, T, D) float, of length 0 or of the dialogue's turns; context:
    turn_speaker Padded (B, T), below num_speakers, -1 or length 0 where not known (no speaker
    embedding is added); target: turn_emotion.
    """

    terms: ClassVar[dict[str, str]] = dict.fromkeys(
        ("fused", "streams", "distillation"), "turn_emotion"
    )

    def __init__(self, config: SDTConfig) -> None:
        super().__init__()
        if not config.streams or config.num_classes < 2:
            raise ValueError("streams, input_widths and num_classes come from the data first")
        self.config = config
        self.weights = {
            "fused": config.fused_weight,
            "streams": config.stream_weight,
            "distillation": config.distillation_weight,
        }
        streams, width, classes = config.streams, config.width, config.num_classes
        weights = torch.tensor(config.class_weights or (1.0,) * classes)
        self.class_weights = nn.Buffer(weights, persistent=False)
        projections = (nn.Linear(size, width, bias=False) for size in config.input_widths)
        self.project = nn.ModuleDict(dict(zip(streams, projections, strict=True)))
        self.speaker = nn.Embedding(config.num_speakers, width) if config.num_speakers else None
        self.encoders = nn.ModuleDict(
            {f"{x}_to_{y}": PairEncoder(config) for y in streams for x in streams}
        )
        self.reduce = nn.ModuleDict({y: nn.Linear(len(streams) * width, width) for y in streams})
        self.multimodal_gate = nn.Linear(width, width, bias=False)
        self.fused_head = nn.Linear(width, classes)
        self.stream_heads = nn.ModuleDict()
        for s in streams:
            head = nn.Sequential(nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(width, classes))
            self.stream_heads[s] = head

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of the three terms over labelled turns, those of streams where they are there."""
        if not batch.count("turn_emotion"):
            return {}
        output = self._run(batch)
        target = _rows(batch.targets["turn_emotion"], output.turns, UNLABELLED)
        stream_target = torch.where(output.present, target, UNLABELLED)
        teacher = output.fused.detach() if self.config.detach_teacher else output.fused
        kl = divergence(output.streams, teacher, self.config.temperature)
        errors = self._cross_entropy(output.streams.flatten(0, 1), stream_target.flatten())
        return {
            "fused": self._cross_entropy(output.fused, target).sum(),
            "streams": errors.sum(),
            "distillation": kl[stream_target != UNLABELLED].sum(),
        }

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """turn_emotion: (B, T, C) logits of the fused prediction, zeros beyond the last turn."""
        output = self._run(batch)
        return {"turn_emotion": Packed(output.fused, output.turns).pad().values}

    @torch.no_grad()
    def explain(self, batch: Batch) -> Explanation:
        """Attention and gates behind `predict`; set the method to evaluation first."""
        output = self._run(batch)
        turns = output.turns.tolist()
        there = dict(zip(self.config.streams, output.present, strict=True))
        attention, unimodal = {}, {}
        for pair, weights in output.attention.items():
            x, y = pair.split("_to_")
            attention[pair] = tuple(
                _scatter(queries[:, None] & keys, dialogue.flatten(1).T).permute(2, 0, 1)
                for queries, keys, dialogue in zip(
                    *(torch.split(there[stream], turns) for stream in (y, x)), weights, strict=True
                )
            )
            unimodal[pair] = torch.split(_scatter(there[y], output.unimodal[pair]), turns)
        multimodal = {
            stream: torch.split(gate, turns)
            for stream, gate in zip(self.config.streams, output.multimodal, strict=True)
        }
        return Explanation(attention, unimodal, multimodal)

    def _run(self, batch: Batch) -> _Output:
        streams = self.config.streams
        turns = self._turns(batch)
        origin = self._position_and_speaker(batch, turns)
        given, present = {}, {}
        for stream in streams:
            given[stream], present[stream] = self._read(batch, stream, turns, origin)
        attention, unimodal, hidden = {}, {}, []
        for y in streams:
            gated = []
            for x in streams:
                pair = f"{x}_to_{y}"
                output, unimodal[pair], attention[pair] = self.encoders[pair](given[y], given[x])
                gated.append(output)
            hidden.append(_scatter(present[y], self.reduce[y](torch.cat(gated, 1))))
        states, there = torch.stack(hidden), torch.stack(list(present.values()))
        scores = self.multimodal_gate(states)
        # Not -inf: a turn without any stream would become NaN.
        scores = scores.masked_fill(~there[..., None], torch.finfo(scores.dtype).min)
        multimodal = scores.softmax(0) * there[..., None]
        return _Output(
            turns,
            there,
            self.fused_head((multimodal * states).sum(0)),
            torch.stack(
                [self.stream_heads[s](state) for s, state in zip(streams, states, strict=True)]
            ),
            attention,
            unimodal,
            multimodal,
        )

    def _turns(self, batch: Batch) -> Tensor:
        """(B,) turns of each dialogue, on which all it has must agree."""
        parts = [batch.inputs.get(stream) for stream in self.config.streams]
        if all(part is None for part in parts):
            raise ValueError(f"the batch has none of the streams {', '.join(self.config.streams)}")
        others = (batch.context.get("turn_speaker"), batch.targets.get("turn_emotion"))
        lengths = torch.stack([p.lengths for p in (*parts, *others) if p is not None])
        turns = lengths.max(0).values
        odd = ((lengths != 0) & (lengths != turns)).any(0)
        if odd.any():
            first = int(odd.nonzero()[0])
            found = sorted(set(lengths[:, first].tolist()))
            raise ValueError(
                f"dialogue {batch.keys[first]} has parts of {found} turns: streams, speakers and "
                "labels need one step for each turn, or none at all"
            )
        return turns

    def _position_and_speaker(self, batch: Batch, turns: Tensor) -> Tensor:
        """(N, D) what is added to every stream's vector of a turn."""
        positions = Packed(turns, turns).positions().to(self.class_weights.device)
        origin = sinusoids(positions, self.config.width)
        if self.speaker is None:
            return origin
        speakers = batch.context.get("turn_speaker")
        if not isinstance(speakers, Padded):
            raise ValueError("the batch has no turn_speaker: give it, or set num_speakers to 0")
        ids = _rows(speakers, turns, UNLABELLED)
        if len(ids) and int(ids.max()) >= self.config.num_speakers:
            found, known = int(ids.max()), self.config.num_speakers
            raise ValueError(f"turn_speaker {found}: must be less than num_speakers, {known}")
        speaker: Tensor = self.speaker(ids.clamp(min=0))
        return origin + speaker * (ids >= 0)[:, None]

    def _read(
        self, batch: Batch, stream: str, turns: Tensor, origin: Tensor
    ) -> tuple[Packed, Tensor]:
        """The stream's turns that are there (N_s, D), and which of all turns those are (N,)."""
        if stream not in batch.inputs:
            nothing = torch.zeros(len(origin), dtype=torch.bool, device=origin.device)
            return Packed(origin[nothing], torch.zeros_like(turns)), nothing
        vectors = _rows(batch.inputs[stream].pad(), turns, 0).to(origin.dtype)
        present = (vectors != 0).any(1)
        counts = torch.stack([part.sum() for part in torch.split(present, turns.tolist())]).cpu()
        return Packed(self.project[stream](vectors[present]) + origin[present], counts), present

    def _cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """(N,) weighted cross entropy of (N, C) and (N,); 0 where UNLABELLED."""
        return class_cross_entropy(logits, target) * self.class_weights[target.clamp(min=0)]


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """(N, D) embedding of positions (N,), Vaswani et al. 2017 (arXiv 1706.03762): dimensions 2 i
    and 2 i + 1 are sine and cosine of position / 10000^(2 i / D).
    """
    rates = torch.exp(torch.arange(0, width, 2, device=positions.device) * -(math.log(1e4) / width))
    angles = positions.float()[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def _rows(padded: Padded, turns: Tensor, fill: int) -> Tensor:
    """(N, ...) steps of all dialogues; `fill` for every turn of a dialogue that has none."""
    given = (padded.lengths > 0).repeat_interleave(turns).to(padded.values.device)
    rows = padded.values.new_full((len(given), *padded.values.shape[2:]), fill)
    rows[given] = padded.pack().values
    return rows


def _scatter(mask: Tensor, values: Tensor) -> Tensor:
    """(*mask's shape, ...) zeros, with `values` (N, ...) where the mask is true."""
    scattered = values.new_zeros((*mask.shape, *values.shape[1:]))
    scattered[mask] = values
    return scattered
