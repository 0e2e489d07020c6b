"""A BERT of transformers, made here with random weights, and posts for it; needs the text extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.shards.layout import Record, shard_path, write_shard
from mmembed.data.shards.records import to_record

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "or", "emotion", "in", "tweet")
CUES = {"anger": "furious", "fear": "scared", "joy": "sunny"}
GERMAN = {"anger": "wuetend", "fear": "bange", "joy": "sonnig"}
OTHER = ("quiet", "pride", "hope", "we", "saw", "them", "today", "again", "so", "what", "a", "day")


def write_random_bert(folder: Path, words: Sequence[str], spread: float = 0.02) -> Path:
    """One layer of width 16 with random weights; the pieces are the special ones and `words`."""
    transformers = pytest.importorskip("transformers")
    pieces = [*SPECIAL[:5], *words]
    (folder / "vocab.txt").write_text("\n".join(pieces))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, initializer_range=spread,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def write_bert(folder: Path) -> Path:
    """Two layers, whole words as pieces. As if pretrained, words that mean the same find each other
    in the first layer, and those of the posts are marked in their last columns.
    """
    transformers = pytest.importorskip("transformers")
    folder.mkdir()
    words = [*SPECIAL, *CUES, *CUES.values(), *GERMAN.values(), *OTHER]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertModel(config)
    table = model.get_input_embeddings().weight
    first = model.encoder.layer[0].attention
    with torch.no_grad():
        table.normal_()
        table[:, 12:] = 0
        for emotion, cue in CUES.items():
            for alike in (cue, GERMAN[emotion]):
                table[words.index(alike)] = table[words.index(emotion)]
                table[words.index(alike), 12:] = torch.tensor([2.0, -2, 2, -2])
        for part in (first.self.query, first.self.key):
            part.weight.copy_(2 * torch.eye(16))
        for part in (first.self.value, first.output.dense):
            part.weight.copy_(torch.eye(16))
    model.save_pretrained(folder)
    return folder


def write_posts(folder: Path, splits: Mapping[str, int], language: str = "en") -> Path:
    """Each emotion is present in a third of the posts, and has its word there."""
    draw, records = np.random.default_rng(len(language)), []
    cues = CUES if language == "en" else GERMAN
    for split, count in splits.items():
        for number in range(count):
            present = [emotion for emotion in CUES if draw.random() < 1 / 3]
            words = [*(cues[emotion] for emotion in present), *draw.choice(OTHER, 3)]
            row = Utterance(
                f"{language}-{split}-{number}",
                None,
                transcript=f"@who {' '.join(draw.permutation(words))}!",
                language=language,
                split=split,
                labels=Labels(present=tuple(present)),
            )
            records.append(Record(*to_record(Example(row, text=row.transcript))))
    write_shard(shard_path(folder, len(list(folder.glob("*.tar")))), records, {})
    return folder
