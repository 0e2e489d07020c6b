"""Text encoders: token ids in, a state for each token out.

`load_backbone` makes one of every model that transformers loads from a folder or by its name on
the hub (BERT, XLM-R, BERTweet, MiniLM). That library is the extra `text`, and is imported when it
is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mmembed.errors import UsageError
from mmembed.features.prompt import Span, Tokens


class HubBackbone(nn.Module):
    """A model of transformers, with or without its masked-language head.

    Args:
        model: what AutoModel or AutoModelForMaskedLM made.
        pad: the id that stands for padding: XLM-R counts positions by it.
        separator: the id between two sequences; tells them apart where the model has token types.
    """

    def __init__(self, model: nn.Module, pad: int, separator: int) -> None:
        super().__init__()
        self.model = model
        self.pad, self.separator = pad, separator

    @property
    def width(self) -> int:
        """D."""
        return int(self.model.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def words(self) -> nn.Embedding:
        """The table (V, D) of word embeddings."""
        table = self.model.get_input_embeddings()  # type: ignore[operator]
        assert isinstance(table, nn.Embedding)
        return table

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, T) int64 ids and (B, T) bool mask, True = real, to (B, T, D) last hidden states.

        What stands outside the mask changes no real token's state.
        """
        inputs = {
            "input_ids": ids.masked_fill(~mask, self.pad),
            "attention_mask": mask.long(),
        }
        if getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = token_types(inputs["input_ids"], self.separator)
        # The model within the masked-language model; a bare model is its own base.
        states: Tensor = self.model.base_model(**inputs).last_hidden_state  # type: ignore[operator]
        return states

    def freeze(self, layers: int) -> None:
        """Keep the embeddings and the lowest layers as they are; 0 keeps nothing.

        Raises:
            UsageError: there are fewer layers, or they are not where BERT's kin have them.
        """
        if not layers:
            return
        base: Any = self.model.base_model
        stack = getattr(getattr(base, "encoder", None), "layer", ())
        if not 0 < layers <= len(stack):
            raise UsageError(f"freeze {layers}: found {len(stack)} layers in {type(base).__name__}")
        for part in (base.embeddings, *stack[:layers]):
            part.requires_grad_(False)

    def vocabulary_logits(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., V) logits of the masked-language head, of BERT or RoBERTa."""
        head = getattr(self.model, "cls", None) or getattr(self.model, "lm_head", None)
        if head is None:
            raise UsageError(f"{type(self.model).__name__} has no masked-language head we know")
        logits: Tensor = head(states)
        return logits


def token_types(ids: Tensor, separator: int) -> Tensor:
    """(B, T) int64: 0 up to the first separator and on it, 1 behind it (BERT's two segments)."""
    ends = (ids == separator).long()
    return (ends.cumsum(1) - ends).clamp(max=1)


class HubTokenizer:
    """A tokenizer of transformers as one of prompts (`features.prompt.Tokenizer`)."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rooms: dict[str, int] = {}

    @property
    def mask_token(self) -> str:
        """See `features.prompt.Tokenizer`."""
        return str(self._tokenizer.mask_token)

    def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
        """See `features.prompt.Tokenizer`."""
        fast = bool(getattr(self._tokenizer, "is_fast", False))
        pair = {} if second is None else {"text_pair": second}
        truncation = "only_first" if second is None else "only_second"
        room = length if second is None else max(length, self._least(first))
        encoded = self._tokenizer(
            first, **pair, truncation=truncation, max_length=room, return_offsets_mapping=fast
        )
        ids = tuple(encoded["input_ids"])
        if not fast:
            return Tokens(ids, tuple(self._aligned(first, ids)))
        whose, offsets = encoded.sequence_ids(), encoded["offset_mapping"]
        spans = [
            (start, end) if which == 0 else None
            for which, (start, end) in zip(whose, offsets, strict=True)
        ]
        return Tokens(ids, tuple(spans))

    def _least(self, first: str) -> int:
        """Tokens of a pair with one token in the second: the library truncates no further."""
        if first not in self._rooms:
            alone = self._tokenizer(first, add_special_tokens=False)["input_ids"]
            twice = self._tokenizer(first, text_pair=first)["input_ids"]
            self._rooms = {first: len(twice) - len(alone) + 1}  # all posts have one prompt
        return self._rooms[first]

    def _aligned(self, first: str, ids: tuple[int, ...]) -> Iterator[Span | None]:
        """Spans by tokenising word by word, for tokenizers that keep no offsets (BERTweet's)."""
        expected: list[int] = []
        owners: list[Span] = []
        end = 0
        for word in first.split():
            start = first.index(word, end)
            end = start + len(word)
            tokens = self._tokenizer(word, add_special_tokens=False)["input_ids"]
            expected += tokens
            owners += [(start, end)] * len(tokens)
        if self._tokenizer(first, add_special_tokens=False)["input_ids"] != expected:
            raise UsageError(
                f"{type(self._tokenizer).__name__} keeps no offsets and does not split words alone "
                "as it does together: use its fast version"
            )
        begin = ids.index(expected[0]) if expected and expected[0] in ids else len(ids)
        yield from [None] * begin
        held = sum(a == b for a, b in zip(ids[begin:], expected, strict=False))  # all, if not cut
        yield from owners[:held]
        yield from [None] * (len(ids) - begin - held)


def load_backbone(name: str, *, masked_language: bool = False) -> tuple[HubBackbone, HubTokenizer]:
    """A pretrained text encoder and its tokenizer.

    Only safetensors weights are read and no code that came with a model is run. A folder is read
    without any network.

    Args:
        name: a folder, or a name on the hub.
        masked_language: with the masked-language head.

    Raises:
        UsageError: transformers is not installed, or it cannot load this.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"{name}: needs pip install 'mmembed[text]' ({error})") from None
    # Weights load in an instant; what takes time, a download, has a bar of its own.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    local = Path(name).is_dir()
    if not local and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise UsageError(f"{name}: there is no such folder")
    kind = transformers.AutoModelForMaskedLM if masked_language else transformers.AutoModel
    given = {"local_files_only": local, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **given)
        # Fused attention is no faster on short texts, and in bfloat16 on CPUs its backward pass
        # alone takes as long as the rest of a step.
        model = kind.from_pretrained(
            name, use_safetensors=True, attn_implementation="eager", **given
        )
    except Exception as error:  # its files may be anybody's, and the library checks few of them
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"{name}: not a text encoder we can load: {reason[:500]}") from None
    pad, separator = tokenizer.pad_token_id, tokenizer.sep_token_id
    if pad is None or separator is None:
        raise UsageError(f"{name}: its tokenizer has no padding or no separator")
    if getattr(model, "pooler", None) is not None:
        model.pooler = None  # a layer on the first token's state, which nobody reads
    return HubBackbone(model, pad, separator), HubTokenizer(tokenizer)
