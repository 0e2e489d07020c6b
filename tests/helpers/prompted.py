"""Tokenizers of several kinds, small prompted methods and batches for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from mmembed.batch import Batch, Packed, Padded
from mmembed.features.prompt import (
    Prompt,
    Span,
    Tokenizer,
    Tokens,
    emotion_prompt,
    masked_prompt,
)
from mmembed.features.text import MASK, Vocabulary
from mmembed.methods.demux import Demux, DemuxConfig, Memo, MemoConfig
from mmembed.nn.transformer import Block

EMOTIONS = ("joy", "enjoyment", "hope or optimism", "quiet pride")
POSTS = (
    "what a day", "joy or anger and hope", "no pride in it", "so much enjoyment here today", "ok",
    "they all left without a word", "quiet", "hope",
)  # fmt: skip
LABELS = torch.tensor(
    [[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1],
     [0, 1, 0, 1], [0, 0, 1, 0]],
    dtype=torch.float32,
)  # fmt: skip


class PairTokenizer:
    """[start] FIRST [end] SECOND [end]; subclasses cut a text into pieces."""

    mask_token = "[MASK]"

    def __init__(self) -> None:
        self.pieces = ["[start]", "[end]", self.mask_token, "[unknown]"]

    def cut(self, text: str) -> list[tuple[str, Span]]:
        """Pieces and the characters they stand for."""
        return [(match[0], match.span()) for match in re.finditer(r"\S+", text)]

    def number(self, piece: str) -> int:
        if piece not in self.pieces:
            self.pieces.append(piece)
        return self.pieces.index(piece)

    def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
        cut = self.cut(first)
        if second is None:
            cut = cut[: length - 2]
        ids = [0, *(self.number(piece) for piece, _ in cut), 1]
        spans: list[Span | None] = [None, *(span for _, span in cut), None]
        if second is not None:
            rest = [self.number(piece) for piece, _ in self.cut(second)]
            ids += [*rest[: max(0, length - len(ids) - 1)], 1]
        return Tokens(tuple(ids), (*spans, *[None] * (len(ids) - len(spans))))

    def text_of(self, ids: Sequence[int]) -> str:
        return " ".join(self.pieces[i] for i in ids)


class WordPieceTokenizer(PairTokenizer):
    """Longest pieces first, "##" before all but the first of a word; small letters only."""

    known = ("joy", "enjoy", "##ment", "hope", "op", "##tim", "##ism", "pri", "##de", "or")

    def cut(self, text: str) -> list[tuple[str, Span]]:
        found = []
        for match in re.finditer(r"\[MASK\]|\w+|[^\w\s]", text):
            word, start = match[0], 0
            while start < len(word) and word != self.mask_token:
                mark = "##" if start else ""
                ends = (e for e in range(len(word), start, -1))
                end = next((e for e in ends if mark + word[start:e] in self.known), start + 1)
                piece = mark + word[start:end].lower()
                found.append((piece, (match.start() + start, match.start() + end)))
                start = end
            if word == self.mask_token:
                found.append((word, match.span()))
        return found

    def text_of(self, ids: Sequence[int]) -> str:
        return super().text_of(ids).replace(" ##", "")


class VocabularyTokenizer:
    """A `Vocabulary` as a tokenizer of prompts: FIRST separator SECOND.

    The separator gets the first id after the vocabulary's own. Texts are normalised beforehand
    (`features.text.normalise_transcript`), as the vocabulary wants them.
    """

    mask_token = "<mask>"

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.separator = len(vocabulary)
        self.size = len(vocabulary) + 1

    def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
        """See `Tokenizer`."""
        ids: list[int] = []
        spans: list[Span | None] = []
        start = 0
        for place, part in enumerate(first.split(self.mask_token)):
            if place:
                ids.append(MASK)
                spans.append((start - len(self.mask_token), start))
            inner = start + len(part) - len(part.lstrip())  # a space beside a mask is no token
            for token, begin, end in self._vocabulary.encode_spans(part.strip()):
                ids.append(token)
                spans.append((inner + begin, inner + end))
            start += len(part) + len(self.mask_token)
        if second is None:
            return Tokens(tuple(ids[:length]), tuple(spans[:length]))
        rest = self._vocabulary.encode(second)[: max(0, length - len(ids) - 1)]
        ids += [self.separator, *rest]
        return Tokens(tuple(ids), (*spans, *[None] * (len(ids) - len(spans))))


class PieceTokenizer(VocabularyTokenizer):
    """A sentencepiece vocabulary of ours, learned from a handful of posts."""

    def __init__(self, kind: Literal["unigram", "bpe", "char"], size: int) -> None:
        words = " ".join(EMOTIONS)
        self.vocabulary = Vocabulary.train([*POSTS, words, "emotion in tweet"], size, kind)
        super().__init__(self.vocabulary)

    def text_of(self, ids: Sequence[int]) -> str:
        return self.vocabulary.decode([i for i in ids if i != self.separator])


TOKENIZERS = {
    "words": PairTokenizer,
    "wordpiece": WordPieceTokenizer,
    "unigram": lambda: PieceTokenizer("unigram", 60),
    "bpe": lambda: PieceTokenizer("bpe", 60),
    "characters": lambda: PieceTokenizer("char", 60),
}


@cache
def tokenizer() -> Tokenizer:
    return PieceTokenizer("bpe", 60)


def batch_of(prompts: Sequence[Prompt], labels: torch.Tensor | None = None) -> Batch:
    """A batch of prompts."""
    return Batch(
        tuple(f"item-{n}" for n in range(len(prompts))),
        {"text": Padded.stack([prompt.ids for prompt in prompts])},
        {} if labels is None else {"emotions": labels},
        {"token_label": Padded.stack([prompt.token_label for prompt in prompts])},
    )


def posts(rows: Sequence[int], emotions: Sequence[str] = EMOTIONS) -> Batch:
    """Posts behind emotion words; the labels of row 3 are not known."""
    labels = LABELS[list(rows)].clone()
    labels[[row == 3 for row in rows]] = torch.nan
    return batch_of([emotion_prompt(emotions, POSTS[row], tokenizer()) for row in rows], labels)


def masked_posts(rows: Sequence[int]) -> Batch:
    """The same posts behind a mask."""
    return batch_of([masked_prompt(POSTS[row], tokenizer()) for row in rows], LABELS[list(rows)])


class TokenTransformer(nn.Module):
    """A small encoder of pre-norm blocks with rotary positions; starts at random."""

    def __init__(
        self, vocabulary_size: int, width: int, num_heads: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.width = width
        self.words = nn.Embedding(vocabulary_size, width)
        nn.init.normal_(self.words.weight, std=width**-0.5)
        self.blocks = nn.ModuleList(Block(width, num_heads, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Packed) -> list[Packed]:
        """See `TextEncoder.forward`; the last layer alone."""
        x = tokens.with_values(self.words(tokens.values))
        positions = tokens.positions().float()
        for block in self.blocks:
            x = block(x, positions)
        return [x.with_values(self.norm(x.values))]

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """See `TextEncoder`; the head is the table of word embeddings."""
        return states @ self.words.weight.T


def small_backbone() -> TokenTransformer:
    return TokenTransformer(64, 16, 2, 1, 0.0)


def small_demux(**settings: object) -> Demux:
    """Seeded, without dropout, and told of the labels."""
    torch.manual_seed(0)
    config = DemuxConfig(emotions=EMOTIONS, dropout=0.0, **settings)  # type: ignore[arg-type]
    method = Demux(config, small_backbone())
    method.correlate(LABELS)
    return method


def small_memo(**settings: object) -> Memo:
    """Likewise."""
    torch.manual_seed(0)
    config = MemoConfig(emotions=EMOTIONS, dropout=0.0, **settings)  # type: ignore[arg-type]
    method = Memo(config, small_backbone())
    method.correlate(LABELS)
    return method
