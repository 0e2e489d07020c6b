"""Prompts: emotion words before a text, and the tokens that each of them became.

Where a word's tokens lie is read off the tokenizer's own output, never assumed: of every token of
the prompt the tokenizer says which characters it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch
from torch import Tensor

from mmembed.errors import UsageError
from mmembed.features.emotion_words import members

Span = tuple[int, int]  # characters, the second one exclusive

OR: Final = {"ar": "\u0623\u0648", "en": "or", "es": "o", "fr": "ou"}
"""Language -> the word between the last two emotions, as the authors' code of Demux has it."""


@dataclass(frozen=True)
class Tokens:
    """A tokenised sequence or pair of sequences, separators and all.

    Attributes:
        ids: of every token.
        spans: the characters of the first sequence that each token stands for; None of a token
            of the second sequence, and of a separator.
    """

    ids: tuple[int, ...]
    spans: tuple[Span | None, ...]


class Tokenizer(Protocol):
    """What a prompt needs of a tokenizer.

    Attributes:
        mask_token: how the mask is written in a text.
    """

    @property
    def mask_token(self) -> str: ...

    def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
        """At most `length` tokens; a pair loses the end of its second sequence, or a single
        sequence its own.
        """


@dataclass(frozen=True)
class Prompt:
    """What a text model reads of one item.

    Attributes:
        ids: (T,) int64.
        token_label: (T,) int64, the number of the emotion word that each token is of, -1 = none.
    """

    ids: Tensor
    token_label: Tensor


def emotion_prompt(
    emotions: Sequence[str],
    text: str,
    tokenizer: Tokenizer,
    length: int = 64,
    disjunction: str = OR["en"],
) -> Prompt:
    """The emotion words, "or" before the last, then the text, of which the end is cut.

    Words are numbered in their order, members of clusters one by one. `disjunction` is the "or".

    Raises:
        UsageError: the emotion words alone take more than `length` tokens, a word leaves no token,
            or one token holds two words.
    """
    words = [word for emotion in emotions for word in members(emotion)]
    first, spans = "", []
    for place, word in enumerate(words):
        first += "" if not place else f" {disjunction} " if place == len(words) - 1 else " "
        spans.append((len(first), len(first) + len(word)))
        first += word
    return _prompt(tokenizer.tokenize(first, text, length), words, spans, length)


def masked_prompt(
    text: str,
    tokenizer: Tokenizer,
    length: int = 64,
    template: str = "emotion {mask} in tweet {text}",
) -> Prompt:
    """A statement on the text with a mask in place of the emotion; the mask's token has label 0.

    Raises:
        UsageError: the mask is not among the first `length` tokens.
    """
    before, after = template.split("{mask}")
    start = len(before.format(text=text))
    span = (start, start + len(tokenizer.mask_token))
    whole = before.format(text=text) + tokenizer.mask_token + after.format(text=text)
    return _prompt(tokenizer.tokenize(whole, None, length), [tokenizer.mask_token], [span], length)


def _prompt(tokens: Tokens, words: list[str], spans: list[Span], length: int) -> Prompt:
    labels = []
    for span in tokens.spans:
        inside = [n for n, word in enumerate(spans) if span is not None and _overlap(span, word)]
        if len(inside) > 1:
            raise UsageError(
                f"the tokenizer makes one token of {' and '.join(words[n] for n in inside)}"
            )
        labels.append(inside[0] if inside else -1)
    if len(tokens.ids) > length:
        raise UsageError(
            f"{len(words)} emotion words take {len(tokens.ids)} tokens of {length}: "
            "ask for fewer, or allow more tokens"
        )
    lost = [word for n, word in enumerate(words) if n not in labels]
    if lost:
        raise UsageError(f"no token of {lost[0]!r} is left within {length} tokens")
    return Prompt(torch.tensor(tokens.ids), torch.tensor(labels))


def _overlap(one: Span, other: Span) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])
