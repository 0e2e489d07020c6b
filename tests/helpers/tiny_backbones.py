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


SMALL: Mapping[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
}  # fmt: skip
PICTURES: Mapping[str, Any] = {**SMALL, "image_size": 32, "patch_size": 8}
TOKENS: Mapping[str, Any] = {**SMALL, "vocab_size": 80, "max_position_embeddings": 24}
BEHIND: Mapping[str, Any] = {  # RoBERTa and its kin count positions from behind the padding's
    **TOKENS, "max_position_embeddings": 26, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2,
}  # fmt: skip

PICTURE: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "vit": ("ViTModel", PICTURES),
    "dinov2": ("Dinov2Model", PICTURES),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", PICTURES),
    "clip_vision_model": ("CLIPVisionModel", PICTURES),
    "siglip_vision_model": ("SiglipVisionModel", PICTURES),
    "clip": (
        "CLIPModel", {"vision_config": PICTURES, "text_config": {**TOKENS, "eos_token_id": 2}}
    ),
    "siglip": ("SiglipModel", {"vision_config": PICTURES, "text_config": TOKENS}),
}  # fmt: skip

TEXT: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "bert": ("BertModel", TOKENS),
    "distilbert": (
        "DistilBertModel",
        {"dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 24, "vocab_size": 80,
         "max_position_embeddings": 24},
    ),
    "roberta": ("RobertaModel", BEHIND),
    "xlm-roberta": ("XLMRobertaModel", BEHIND),
    "mpnet": ("MPNetModel", BEHIND),
}  # fmt: skip


WORDS = (
    "what a quiet day, they left without a word", "joy or anger and hope, no pride in it",
    "so much enjoyment here today", "Hope and optimism: we saw Them again!",
)  # fmt: skip


def tiny_tokenizer(kind: str) -> Any:
    """As transformers reads them: pieces of words, of bytes or of characters, learned from a few
    lines; a model of 80 tokens has places for all of them.
    """
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    normalizers, pre = tokenizers.normalizers, tokenizers.pre_tokenizers
    trainers, processors = tokenizers.trainers, tokenizers.processors
    bert = kind in ("bert", "distilbert")
    names = ("cls", "pad", "sep", "unk", "mask")
    special = [f"[{name.upper()}]" for name in names] if bert else [
        "<s>", "<pad>", "</s>", "<unk>", "<mask>"
    ]  # fmt: skip
    if bert:
        special[:2] = special[1::-1]  # the padding comes first
    first, last = ("[CLS]", "[SEP]") if bert else ("<s>", "</s>")
    ends = [(token, special.index(token)) for token in (last, first)]
    settings = {"vocab_size": 75, "special_tokens": special, "show_progress": False}
    if kind == "roberta":
        made = tokenizers.Tokenizer(tokenizers.models.BPE())
        made.pre_tokenizer = pre.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(**settings)
    elif kind == "xlm-roberta":
        made = tokenizers.Tokenizer(tokenizers.models.Unigram())
        made.pre_tokenizer = pre.Metaspace()
        trainer = trainers.UnigramTrainer(**settings, unk_token="<unk>")
    else:
        unknown = special[3]
        made = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=unknown))
        made.normalizer = normalizers.BertNormalizer()
        made.pre_tokenizer = pre.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(**settings)
    made.train_from_iterator(WORDS, trainer)
    if bert:
        made.post_processor = processors.BertProcessing(*ends)
    else:
        made.post_processor = processors.RobertaProcessing(*ends, add_prefix_space=False)
    made.enable_truncation(12)  # as some published files say, which is not what a model needs
    made.enable_padding(length=12)
    tokens = {"cls_token": first, "sep_token": last, "unk_token": special[3]}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, **tokens, pad_token="[PAD]" if bert else "<pad>",
        mask_token=special[4],
    )  # fmt: skip


def tiny_model(kind: str, **changed: Any) -> Any:
    """A model of transformers; `changed` are further settings of its configuration."""
    transformers = pytest.importorskip("transformers")
    name, settings = {**SPEECH, **PICTURE, **TEXT}[kind]
    module = getattr(transformers, name)
    torch.manual_seed(0)
    model = module(module.config_class(**{**settings, **changed}))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)  # biases and norms, too, do something
    return model


def write_tiny(folder: Path, kind: str, **changed: Any) -> Path:
    """The files of such a model, as if pretrained."""
    tiny_model(kind, **changed).save_pretrained(folder)
    if kind in TEXT:
        tiny_tokenizer(kind).save_pretrained(folder)
    return folder
