"""Pretrained encoders of each architecture as transformers writes them: tiny, random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

# What models of wav2vec 2.0's kind share. Each odd one of their settings is on.
SAMPLES: Mapping[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
    "vocab_size": 30, "layerdrop": 0.5, "mask_time_prob": 0.5,
}  # fmt: skip

# model type -> (class of transformers that is written, settings of its configuration)
SPEECH: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "whisper": (
        "WhisperForConditionalGeneration",
        {
            "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "num_mel_bins": 20,
            "encoder_ffn_dim": 24, "decoder_layers": 1, "decoder_attention_heads": 2,
            "decoder_ffn_dim": 24, "vocab_size": 30, "pad_token_id": 0, "bos_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 1, "activation_function": "gelu",
        },
    ),
    "wav2vec2": ("Wav2Vec2ForCTC", SAMPLES),
    "hubert": ("HubertModel", SAMPLES),
    "data2vec-audio": ("Data2VecAudioModel", {**SAMPLES, "num_conv_pos_embeddings": 3}),
    "wavlm": ("WavLMModel", {**SAMPLES, "num_buckets": 32, "max_bucket_distance": 60}),
}  # fmt: skip


def write_tiny(folder: Path, kind: str, **changed: Any) -> Path:
    """The files of a pretrained model; `changed` are further settings of its configuration."""
    transformers = pytest.importorskip("transformers")
    name, settings = SPEECH[kind]
    module = getattr(transformers, name)
    torch.manual_seed(0)
    model = module(module.config_class(**{**settings, **changed}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)  # biases and norms, too, do something
    model.save_pretrained(folder)
    return folder
