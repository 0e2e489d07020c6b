"""Text encoders: token ids in, a state for each token and layer out.

BERT (MiniLM is one), DistilBERT, RoBERTa, XLM-R and MPNet, each with its own tokenizer. A text that
is longer than the model has positions is read in consecutive pieces, none of which sees another:
the tokenizer puts the special tokens around every piece, and the encoder cuts where it cut.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

import torch
from torch import Tensor, nn

from mmembed.backbones.stream import PaddedForm, StreamEncoder
from mmembed.batch import Packed, Padded
from mmembed.config import Hz
from mmembed.errors import CorruptError, UsageError
from mmembed.features.prompt import Span, Tokens

TOKENS: Final = 4096  # encoded at once, with their padding: bounds memory
MASKS: Final = ("[MASK]", "<mask>")


class TextEncoder(StreamEncoder):
    """See the module's docstring.

    Texts of similar lengths are padded to one batch and masked: a masked token gets the weight 0,
    exactly. On one core that takes half as long as one text at a time.

    Args:
        model: of transformers, with its masked-language head or without.

    Attributes:
        separator: the id between the two texts of a prompt, if inputs are such pairs. What stands
            behind the first one has token type 1 where a model has two (BERT).
        head: the masked-language head; None without.
    """

    stream = "text"

    def __init__(self, model: nn.Module) -> None:
        whole: Any = model
        super().__init__(whole.base_model)  # a model without head is its own base
        if getattr(self.model, "pooler", None) is not None:
            self.model.pooler = None  # reads the first token's last state; nobody reads it
        # Fused attention is no faster on short texts, and in bfloat16 on CPUs its backward pass
        # alone takes as long as the rest of a step.
        whole.set_attn_implementation("eager")
        head = getattr(whole, "cls", None) or getattr(whole, "lm_head", None)
        self.head: nn.Module | None = head
        self.separator: int | None = None

    @property
    def width(self) -> int:
        """See `StreamEncoder`."""
        return int(self.model.config.hidden_size)

    @property
    def rate(self) -> Hz:
        """See `StreamEncoder`."""
        return 0

    @property
    def blocks(self) -> nn.ModuleList:
        """See `StreamEncoder`."""
        stack = self.model.transformer if hasattr(self.model, "transformer") else self.model.encoder
        found: nn.ModuleList = stack.layer
        return found

    @property
    def words(self) -> nn.Embedding:
        """The table (V, D) of word embeddings."""
        table: nn.Embedding = self.model.get_input_embeddings()
        return table

    @property
    def positions(self) -> int:
        """The most tokens of a text that are read together, special tokens included."""
        table = self.model.embeddings.position_embeddings
        padding = table.padding_idx
        # RoBERTa and its kin count from behind the padding's position.
        return int(table.num_embeddings if padding is None else table.num_embeddings - padding - 1)

    def steps(self, lengths: Tensor) -> Tensor:
        """One a token."""
        return lengths

    def forward(self, inputs: Packed) -> list[Packed]:
        """See `StreamEncoder`."""
        if not len(inputs.values):
            nothing = inputs.with_values(self.words.weight.new_zeros(0, self.width))
            return [nothing] * (len(self.blocks) + 1)
        items = Packed(torch.arange(len(inputs.values)), inputs.lengths).split()
        parts = (torch.split(item, self.positions) for item in items if len(item))
        pieces = sorted(itertools.chain.from_iterable(parts), key=len)
        batches = [self._states(inputs.values, batch) for batch in _batches(pieces)]
        back = torch.cat(pieces).argsort().to(inputs.values.device)
        return [inputs.with_values(torch.cat(layer)[back]) for layer in zip(*batches, strict=True)]

    def _states(self, ids: Tensor, pieces: Sequence[Tensor]) -> list[Tensor]:
        """All ids (N,) and the places (n_i,) of the tokens of some pieces to L + 1 layers
        (sum n_i, D).
        """
        places = Padded.stack(pieces)
        layers = self.padded(places.with_values(ids[places.values.to(ids.device)]))
        return [layer.pack().values for layer in layers]

    @property
    def padded_form(self) -> PaddedForm:
        """See `StreamEncoder`: texts of one piece."""
        return PaddedForm(
            "mmembed.backbones.text.TextTokenizer.encode, with tokenizer.json of the encoder "
            "folder; texts of one piece",
            dtype="int64",
            values=self.words.num_embeddings,
            longest=self.positions,
        )

    def padded(self, inputs: Padded) -> list[Padded]:
        """See `StreamEncoder`; anything may stand in the padding."""
        mask = inputs.mask
        given = inputs.values.masked_fill(~mask, self.model.config.pad_token_id)
        settings = {}
        if self.separator is not None and getattr(self.model.config, "type_vocab_size", 0) > 1:
            settings["token_type_ids"] = token_types(given, self.separator)
        seen = self.model(
            input_ids=given, attention_mask=mask.long(), output_hidden_states=True, **settings
        )
        return [inputs.with_values(layer) for layer in seen.hidden_states]

    def freeze(self, layers: int) -> None:
        """Keep the embeddings and the lowest layers as they are; 0 keeps nothing.

        Raises:
            UsageError: there are fewer layers.
        """
        if not layers:
            return
        if not 0 < layers <= len(self.blocks):
            kind = type(self.model).__name__
            raise UsageError(f"freeze {layers}: found {len(self.blocks)} layers in {kind}")
        for part in (self.model.embeddings, *self.blocks[:layers]):
            part.requires_grad_(False)

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., V) logits of the masked-language head, of BERT, RoBERTa or MPNet."""
        if self.head is None:
            raise UsageError(f"{type(self.model).__name__} has no masked-language head we know")
        logits: Tensor = self.head(states)
        return logits


def _batches(pieces: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Pieces, shortest first, in runs of at most `TOKENS` tokens with padding."""
    batch: list[Tensor] = []
    for piece in pieces:
        if batch and (len(batch) + 1) * len(piece) > TOKENS:
            yield batch
            batch = []
        batch.append(piece)
    yield batch


def token_types(ids: Tensor, separator: int) -> Tensor:
    """(B, T) int64: 0 up to the first separator and on it, 1 behind it (BERT's two segments)."""
    ends = (ids == separator).long()
    return (ends.cumsum(1) - ends).clamp(max=1)


class TextTokenizer:
    """The tokenizer of a pretrained text encoder, also one of prompts (`features.prompt`).

    It wants a text as it was written: what has to become lower case, it makes so itself.
    """

    as_written = True

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer  # of the library tokenizers, cutting where a model does

    @classmethod
    def of(cls, tokenizer: Any, positions: int) -> TextTokenizer:
        """From a tokenizer of transformers, for a model that reads so many tokens together.

        Raises:
            UsageError: it is a slow one that transformers cannot make fast.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise UsageError(
                f"{type(tokenizer).__name__} has no fast version, and others do not say which "
                "characters a token stands for"
            )
        made = cls._read(tokenizer.backend_tokenizer.to_str())
        made._tokenizer.no_padding()
        made._tokenizer.enable_truncation(positions)
        return made

    @classmethod
    def from_bytes(cls, content: bytes) -> TextTokenizer:
        """The inverse of `to_bytes`.

        Raises:
            CorruptError: it is no tokenizer that `to_bytes` gave.
        """
        try:
            made = cls._read(content.decode())
        except Exception as error:  # the library raises no other
            raise CorruptError(f"not a tokenizer: {' '.join(str(error).split())[:200]}") from None
        if made._tokenizer.truncation is None or made._tokenizer.padding is not None:
            raise CorruptError(
                "a tokenizer of another program: it does not say where texts are cut"
            )
        return made

    @classmethod
    def _read(cls, content: str) -> TextTokenizer:
        from tokenizers import Tokenizer

        return cls(Tokenizer.from_str(content))

    def to_bytes(self) -> bytes:
        """Its tokenizer.json."""
        content: str = self._tokenizer.to_str()
        return content.encode()

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def encode(self, text: str) -> list[int]:
        """Text -> token ids, special tokens included; of an empty text, nothing but these."""
        return [token for token, _, _ in self.encode_spans(text)]

    def encode_spans(self, text: str) -> list[tuple[int, int, int]]:
        """The same tokens as (id, start, end): the characters of `text` that each stands for; of
        special tokens (id, 0, 0).
        """
        first = self._tokenizer.encode(text)
        return [
            (token, *span)
            for piece in (first, *first.overflowing)
            for token, span in zip(piece.ids, piece.offsets, strict=True)
        ]

    @cached_property
    def _uncut(self) -> Any:
        """The same, for prompts, of which not any end may be cut."""
        uncut = self._read(self._tokenizer.to_str())._tokenizer
        uncut.no_truncation()
        return uncut

    @property
    def separator(self) -> int:
        """The id behind a text, and between the two of a pair."""
        return int(self._tokenizer.encode("").ids[-1])

    @property
    def mask(self) -> int:
        """The id of `mask_token`."""
        return int(self._tokenizer.token_to_id(self.mask_token))

    @property
    def mask_token(self) -> str:
        """See `features.prompt.Tokenizer`."""
        # MPNet's table has both, of which one is an ordinary piece.
        added = self._tokenizer.get_added_tokens_decoder().values()
        special = {token.content for token in added if token.special}
        return next(mask for mask in MASKS if mask in special)

    def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
        """See `features.prompt.Tokenizer`; one token at least is left of the text that is cut."""
        encoded = self._uncut.encode(first, second)
        whose = encoded.sequence_ids
        cut = [place for place, which in enumerate(whose) if which == (0 if second is None else 1)]
        surplus = max(0, min(len(whose) - length, len(cut) - 1))
        lost = set(cut[len(cut) - surplus :])
        kept = [place for place in range(len(whose)) if place not in lost]
        spans: list[Span | None] = [
            encoded.offsets[place] if whose[place] == 0 else None for place in kept
        ]
        return Tokens(tuple(encoded.ids[place] for place in kept), tuple(spans))
