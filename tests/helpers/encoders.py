"""A small encoder that has learned nothing, saved as pre-training saves one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from helpers.support import small_encoder_config
from torch import nn

from mmembed.embedder import Recogniser, save_encoder
from mmembed.encoder import Encoder
from mmembed.features.text import Vocabulary

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
