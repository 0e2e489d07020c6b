"""Multi-task multimodal embeddings: one encoder trained to recognise speech and speakers.

Paper: Khare, Parthasarathy, Sundaram, "Multi-Modal Embeddings Using Multi-Task Learning for Emotion
Recognition", Interspeech 2020, arXiv 2009.05019. In its spirit; not a reproduction.

    loss = 0.8 * CTC / tokens + 0.2 * speaker cross entropy + w * masked-token cross entropy

Deviations: speech recognition by CTC instead of an attention decoder; the text stream has a
masked-token term of its own (after arXiv 2011.10652), since a CTC head that saw the text would only
copy it; the speaker head reads pooled statistics of a learned weighted sum of the audio layers: a
face tells who it is at once, and a picture trunk that learns this keeps little else (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import Batch, Packed, precise
from mmembed.encoder import Encoder, EncoderOutput
from mmembed.features.text import BLANK
from mmembed.losses import class_cross_entropy, ctc_loss, margin_logits
from mmembed.method import Method
from mmembed.nn.transformer import Block, LayerWeights, pool_layers
from mmembed.settings.methods import CtcSpeakerConfig


class CtcSpeaker(Method):
    """Encoder, CTC head, speaker head, masked-token head."""

    terms: ClassVar[dict[str, str]] = {
        "ctc": "transcript",
        "speaker": "speaker",
        "masked_text": "masked_text",
    }

    def __init__(
        self, config: CtcSpeakerConfig, backbones: Mapping[str, StreamEncoder] | None = None
    ) -> None:
        super().__init__()
        if config.num_speakers < 1 or config.alphabet_size < 2:
            raise ValueError("num_speakers and alphabet_size come from the training data first")
        self.config = config
        self.weights = {term: getattr(config, f"{term}_weight") for term in self.terms}
        width = config.encoder.width
        self.encoder = Encoder(config.encoder, backbones)
        self.ctc_head = nn.Linear(width, config.alphabet_size)
        self.speaker_layers = LayerWeights(len(self.encoder.own_layer_names("audio")))
        # A hidden layer, so that the head rather than the encoder may forget what is not the
        # speaker's (cf. the projection heads of arXiv 2002.05709); one seed showed no difference.
        audio = self.encoder.backbone("audio")
        read = 2 * (width if audio is None else max(width, audio.width))
        self.speaker_embedding = nn.Sequential(
            nn.LayerNorm(read),
            nn.Dropout(config.encoder.dropout),
            nn.Linear(read, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        cosine = config.speaker_loss == "margin"
        self.speaker_classes = nn.Linear(width, config.num_speakers, bias=not cosine)
        self.text_query = nn.Parameter(0.02 * torch.randn(width))
        self.text_reader = Block(width, config.encoder.num_heads, 0.0, cross=True)
        self.text_head = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, config.encoder.vocabulary_size)
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of the three terms over the items that carry their targets."""
        output = self.encoder.encode(batch.inputs)
        sums = {}
        if batch.count("transcript"):
            log_probs = self._ctc_log_probs(output)
            sums["ctc"] = ctc_loss(log_probs, batch.targets["transcript"], BLANK).sum()
        if batch.count("speaker"):
            speaker = batch.targets["speaker"]
            logits = self._speaker_logits(output, speaker)
            sums["speaker"] = class_cross_entropy(logits, speaker).sum()
        if batch.count("masked_text"):
            sums["masked_text"] = self._masked_text(output, batch).sum()
        return sums

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """transcript: (B, T) best CTC class of each frame, blank beyond the item's end;
        speaker: (B, C) logits (cosines with the margin loss).
        """
        output = self.encoder.encode(batch.inputs)
        log_probs = self._ctc_log_probs(output)
        best = log_probs.with_values(log_probs.values.argmax(1))
        speaker = torch.full((len(batch),), -1, device=best.values.device)
        return {"transcript": best.pad().values, "speaker": self._speaker_logits(output, speaker)}

    def _ctc_log_probs(self, output: EncoderOutput) -> Packed:
        assert output.audio_visual is not None
        logits = self.ctc_head(output.audio_visual.values)
        return output.audio_visual.with_values(precise(logits).log_softmax(1))

    def _speaker_logits(self, output: EncoderOutput, speaker: Tensor) -> Tensor:
        names = self.encoder.own_layer_names("audio")
        pooled = pool_layers({name: output.layers[name] for name in names})
        if (factor := self.config.speaker_gradient) != 1:
            fixed = pooled.detach()
            pooled = fixed + factor * (pooled - fixed)  # the same values
        embedding = self.speaker_embedding(self.speaker_layers(pooled))
        if self.config.speaker_loss == "softmax":
            logits: Tensor = self.speaker_classes(embedding)
            return logits
        cosines = F.normalize(embedding) @ F.normalize(self.speaker_classes.weight).T
        return margin_logits(cosines, speaker, self.config.margin, self.config.scale)

    def _masked_text(self, output: EncoderOutput, batch: Batch) -> Tensor:
        """(B',) cross entropy of the tokens, averaged within each item that has text.

        Some tokens are masked in the text stream. All are predicted from the fused frames, by
        queries that hold nothing but their position: so the frames have to carry the words.
        """
        has_text = output.present[:, 2]
        steps = has_text.repeat_interleave(output.fused.lengths).to(output.fused.values.device)
        fused = Packed(output.fused.values[steps], output.fused.lengths[has_text])
        query = output.text.with_values(self.text_query.expand_as(output.text.values))
        read = self.text_reader(query, output.text_positions, fused, fused.positions().float())
        target = batch.targets["masked_text"].pack().values
        errors = class_cross_entropy(self.text_head(read.values), target)
        lengths = output.text.lengths.to(errors.device)
        total = errors.new_zeros(len(lengths)).index_add(0, output.text.item_index(), errors)
        return total / lengths
