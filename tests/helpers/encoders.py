"""Small encoders that have learned nothing, saved as pre-training saves them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from helpers.support import small_encoder_config
from helpers.tiny_backbones import write_tiny
from torch import nn

from mmembed.backbones.pretrained import load_pretrained
from mmembed.embedder import Recogniser, save_encoder
from mmembed.encoder import Encoder
from mmembed.features.text import Vocabulary
from mmembed.settings.encoder import BackboneConfig

SENTENCES = ["red on blue", "lay white at nine"]


def write_encoder(folder: Path, *, recogniser: bool = True, **known: object) -> Path:
    """The same folder each time."""
    torch.manual_seed(0)
    vocabulary = Vocabulary.train(SENTENCES, 20, "char")
    config = replace(small_encoder_config(), vocabulary_size=len(vocabulary))
    encoder = Encoder(config)
    head = Recogniser(nn.Linear(config.width, len(vocabulary)), vocabulary) if recogniser else None
    save_encoder(folder, encoder, vocabulary, {"name": "made"}, recogniser=head, **known)  # type: ignore[arg-type]
    return folder


def write_on_pretrained(folder: Path, audio: str, video: str, text: str) -> Path:
    """One whose front ends are tiny pretrained encoders of these architectures."""
    kinds = {"audio": audio, "video": video, "text": text}
    bases = {
        stream: load_pretrained(str(write_tiny(folder / kind, kind)))
        for stream, kind in kinds.items()
    }
    named = {
        stream: BackboneConfig(str(folder / kind), sha256=bases[stream].sha256)
        for stream, kind in kinds.items()
    }
    config = replace(
        small_encoder_config(), width=8, audio_layers=1, vocabulary_size=80, **named
    )  # narrower than the pretrained ones
    torch.manual_seed(0)
    encoder = Encoder(config, {stream: base.encoder for stream, base in bases.items()})
    tokenizer = bases["text"].tokenizer
    assert tokenizer is not None
    save_encoder(folder / "encoder", encoder, tokenizer, {"name": "made"})
    return folder / "encoder"
