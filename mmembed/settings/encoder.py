"""Sizes of the encoder, and the pretrained encoders on which it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from mmembed.config import Config, Count, Depth, Dropout, Heads, Width
from mmembed.errors import UsageError
from mmembed.streams import STREAMS


@dataclass(frozen=True)
class BackboneConfig(Config):
    """A pretrained encoder in the place of a front end.

    Attributes:
        name: Folder of the pretrained encoder, or its name on the Hugging Face hub; without one the
            stream has a front end of its own, trained from nothing.
        sha256: SHA-256 of the pretrained encoder. Set from the encoder: a run continues with the
            same one alone.
        tuned: What of it is trained: nothing, its top blocks, LoRA matrices in all blocks, or all.
        top: Blocks that are trained with --tuned top.
        lora_rank: Rank of the LoRA matrices.
    """

    name: str = ""
    sha256: str = ""
    tuned: Literal["nothing", "top", "lora", "all"] = "nothing"
    top: Count = 2
    lora_rank: Width = 8


@dataclass(frozen=True)
class EncoderConfig(Config):
    """Sizes of an encoder.

    Attributes:
        vocabulary_size: Subwords of the text stream, special ones included. Set from the training
            data.
        width: Width D of all layers.
        num_heads: Heads of every attention; 2 * num_heads must divide width.
        audio_layers: Self-attention blocks of the audio stream.
        video_layers: Self-attention blocks of the video stream.
        text_layers: Self-attention blocks of the text stream.
        cross_layers: Cross-modal blocks, for video and for text each.
        conv_size: Steps seen by the convolution in each block of the audio stream; 0 means no
            convolution.
        audio_channels: Channels of the first convolutions of the audio front end.
        video_channels: Channels of the first convolution of the video front end.
        dropout: Dropout probability after attention and feed-forward.
        audio: A pretrained encoder as front end of the audio stream.
        video: A pretrained encoder as front end of the video stream.
        text: A pretrained encoder as front end of the text stream.
    """

    vocabulary_size: Count = 0
    width: Width = 192
    num_heads: Heads = 4
    audio_layers: Depth = 6
    video_layers: Depth = 1
    text_layers: Depth = 1
    cross_layers: Depth = 1
    conv_size: Depth = 15
    audio_channels: Width = 24
    video_channels: Width = 16
    dropout: Dropout = 0.1
    audio: BackboneConfig = field(default_factory=BackboneConfig)
    video: BackboneConfig = field(default_factory=BackboneConfig)
    text: BackboneConfig = field(default_factory=BackboneConfig)

    def backbone_config(self, stream: str) -> BackboneConfig:
        """The pretrained encoder of a stream; its name is "" where there is none."""
        return {"audio": self.audio, "video": self.video, "text": self.text}[stream]

    def with_backbones(self, change: Callable[[str, BackboneConfig], BackboneConfig]) -> Self:
        """The same with the pretrained encoder of each stream that has one changed."""
        configs = [self.backbone_config(stream) for stream in STREAMS]
        named = zip(STREAMS, configs, strict=True)
        audio, video, text = (change(s, config) if config.name else config for s, config in named)
        return replace(self, audio=audio, video=video, text=text)

    def check(self) -> None:
        """See `Config`."""
        if self.width % (2 * self.num_heads):
            raise UsageError(
                f"width {self.width}: must be a multiple of 2 * {self.num_heads} heads"
            )
        if self.conv_size and not self.conv_size % 2:
            raise UsageError(f"conv_size {self.conv_size}: must be odd, or 0")
