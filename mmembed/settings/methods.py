"""Settings of the methods that a user sets one by one; the others are sized by their study."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from mmembed.config import Config, Count, Depth, Dropout, Heads, Weight, Width, Within
from mmembed.errors import UsageError
from mmembed.settings.encoder import EncoderConfig
from mmembed.streams import STREAMS


@dataclass(frozen=True)
class CtcSpeakerConfig(Config):
    """Settings of the method.

    Attributes:
        encoder: Sizes of the encoder.
        num_speakers: Speakers C to classify. Set from the training data.
        alphabet_size: Output units of CTC, the blank included. Set from the training data.
        ctc_weight: Weight of the speech recognition loss; 0 switches it off.
        speaker_weight: Weight of the speaker classification loss; 0 switches it off.
        masked_text_weight: Weight of the masked-token loss; 0 switches it off.
        speaker_gradient: Factor of the gradient by which the speaker loss trains the encoder: 1 as
            it is, 0 trains its head alone, below 0 is reversed, so that the encoder unlearns who
            speaks (Ganin et al. 2016, arXiv 1505.07818).
        speaker_loss: Loss of speakers: softmax, or additive-margin softmax.
        margin: Margin of the additive-margin softmax.
        scale: Scale of the cosines in the additive-margin softmax.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    num_speakers: Count = 0
    alphabet_size: Count = 0
    ctc_weight: Weight = 0.8
    speaker_weight: Weight = 0.2
    masked_text_weight: Weight = 0.1
    speaker_gradient: Annotated[float, Within(-100, 100)] = 1.0
    speaker_loss: Literal["softmax", "margin"] = "softmax"
    margin: Annotated[float, Within(0, 1)] = 0.2
    scale: Annotated[float, Within(0, 1e6, above=True)] = 30.0


@dataclass(frozen=True)
class EmotionConfig(Config):
    """Settings of the regressor.

    Attributes:
        layers: Layers L of the embeddings. Set from the data.
        width: Width of the vector of each layer, twice the width of the encoder. Set from the data.
        hidden: Width of the hidden layer.
        dropout: Dropout on the hidden layer.
        sentiment_weight: Weight of the sentiment loss.
        emotions_weight: Weight of the emotion loss.
    """

    layers: Count = 0
    width: Count = 0
    hidden: Width = 128
    dropout: Dropout = 0.1
    sentiment_weight: Weight = 1.0
    emotions_weight: Weight = 1.0


@dataclass(frozen=True)
class SDTConfig(Config):
    """Settings of the method; the paper's are for IEMOCAP, then MELD where they differ.

    Attributes:
        streams: Streams to use. Set from the data.
        input_widths: Width of the vectors of each stream (paper: text 1024, audio 1582 or 300,
            video 342). Set from the data.
        num_classes: Classes C (paper: 6 for IEMOCAP, 7 for MELD). Set from the data.
        num_speakers: Largest number of speakers in a dialogue (paper: 2, 9); 0 means no speaker
            embedding.
        width: Width of the model, a multiple of num_heads (paper: 1024; the default suits small
            corpora).
        num_heads: Heads of each attention.
        dropout: Dropout of inputs, attention weights, attention, feed-forward and stream heads.
        unimodal_gate: "learned" uses a matrix for each pair (paper: IEMOCAP), "identity" does not
            (MELD).
        class_weights: Weights of the cross entropies, one for each class, with an average of 1 over
            training turns (`balanced_weights`); by default none (MELD).
        temperature: Temperature tau of the divergence (paper: 1, 8).
        detach_teacher: Stop the gradient of the divergence at the teacher; the released code does
            not.
        fused_weight: Weight of the cross entropy of the fused prediction.
        stream_weight: Weight of the cross entropies of the streams.
        distillation_weight: Weight of the divergence.
    """

    streams: tuple[str, ...] = ()
    input_widths: tuple[Count, ...] = ()
    num_classes: Count = 0
    num_speakers: Count = 2
    width: Width = 256
    num_heads: Heads = 8
    dropout: Dropout = 0.5
    unimodal_gate: Literal["learned", "identity"] = "learned"
    class_weights: tuple[Weight, ...] = ()
    temperature: Annotated[float, Within(0, 1e6, above=True)] = 1.0
    detach_teacher: bool = False
    fused_weight: Weight = 1.0
    stream_weight: Weight = 1.0
    distillation_weight: Weight = 1.0

    def check(self) -> None:
        """See `Config`."""
        streams, classes = self.streams, len(self.class_weights)
        if len(set(streams)) != len(streams) or set(streams) - set(STREAMS):
            raise UsageError(f"streams {streams}: name some of {', '.join(STREAMS)}, each once")
        if len(self.input_widths) != len(streams):
            raise UsageError(f"input_widths {self.input_widths}: give one for each of {streams}")
        if self.width % self.num_heads or self.width % 2:
            raise UsageError(f"width {self.width}: must be even, a multiple of {self.num_heads}")
        if classes not in (0, self.num_classes) or any(w <= 0 for w in self.class_weights):
            raise UsageError(
                f"class_weights {self.class_weights}: give {self.num_classes} above 0, or none"
            )


@dataclass(frozen=True)
class EmotionQueriesConfig(Config):
    """Settings of the method.

    Attributes:
        streams: Inputs to read. "embedding" holds the frames of the encoder (B, T, D), or its
            layers as frames (B, L, 2 D).
        widths: Width of the features of each stream. Set from the data.
        num_emotions: Emotions E of the training set. Set from the data.
        query_width: Width of the vectors of emotion words. Set from the text encoder.
        width: Width D of attention and head, a multiple of 2 * num_heads.
        num_heads: Heads of each attention.
        num_blocks: Blocks of cross attention.
        dropout: Dropout after attention and feed-forward, and in the head.
        steps: Steps of each stream that are standardised each by itself: the number of layers, 1
            for frames. Set from the data; by default 1.
    """

    streams: tuple[str, ...] = ("embedding",)
    widths: tuple[Count, ...] = (0,)
    num_emotions: Count = 0
    query_width: Count = 0
    width: Width = 128
    num_heads: Heads = 4
    num_blocks: Depth = 1
    dropout: Dropout = 0.1
    steps: tuple[Count, ...] = ()

    def check(self) -> None:
        """See `Config`."""
        if len(self.streams) != len(self.widths) or len(set(self.streams)) != len(self.streams):
            raise UsageError(f"widths {self.widths}: give one for each of {self.streams}")
        if self.steps and len(self.steps) != len(self.streams):
            raise UsageError(f"steps {self.steps}: give one for each of {self.streams}")
        if self.width % (2 * self.num_heads):
            raise UsageError(
                f"width {self.width}: must be a multiple of 2 * {self.num_heads} heads"
            )
