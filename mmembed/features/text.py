"""Words to tokens: normalisation and a sentencepiece vocabulary."""

from __future__ import annotations

import hashlib
import io
import itertools
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final, Literal, Protocol

import sentencepiece

from mmembed.errors import CorruptError, UsageError

BLANK: Final = 0  # of CTC; sentencepiece's pad, never part of a text
UNKNOWN: Final = 1
MASK: Final = 2  # stands for a hidden token of the text stream
APOSTROPHES: Final = ("'", "\N{RIGHT SINGLE QUOTATION MARK}")


def normalise_transcript(text: str) -> str:
    """Lower case, NFC; letters of any script, digits, apostrophes within words; single spaces."""
    text = unicodedata.normalize("NFC", text.lower())
    kept = []
    for before, character, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
        if unicodedata.category(character)[0] in "LMN":
            kept.append(character)
        elif character in APOSTROPHES and before.isalpha() and after.isalpha():
            kept.append("'")
        else:
            kept.append(" ")
    return " ".join("".join(kept).split())


class Subwords(Protocol):
    """Text to the token ids of a text stream: our `Vocabulary`, or that of a pretrained encoder.

    Attributes:
        as_written: whether it reads a text as it was written, else normalised.
        mask: the id of a token that is hidden.
    """

    as_written: bool

    @property
    def mask(self) -> int: ...

    def __len__(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """The ids of a text's tokens."""

    def encode_spans(self, text: str) -> list[tuple[int, int, int]]:
        """The same, each with where in the text it starts and ends, in characters."""


class Vocabulary:
    """Sentencepiece pieces; ids 0, 1, 2 are the CTC blank, the unknown piece and the text mask."""

    as_written = False
    mask = MASK

    def __init__(self, model: bytes) -> None:
        self._model = model
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(model)
            for number in range(len(self)):
                self._processor.IdToPiece(number)  # each is text
        except (RuntimeError, UnicodeDecodeError) as error:
            raise CorruptError(f"not a sentencepiece vocabulary: {error}") from None
        ids = (self._processor.pad_id(), self._processor.unk_id())
        if ids != (BLANK, UNKNOWN) or len(self) <= MASK:
            raise CorruptError("a sentencepiece vocabulary of another program: its ids are others")

    @classmethod
    def train(
        cls,
        sentences: Iterable[str],
        size: int,
        kind: Literal["unigram", "bpe", "char"] = "unigram",
    ) -> Vocabulary:
        """Learn at most `size` pieces from normalised sentences; the same sentences in any order
        give the same vocabulary.

        Raises:
            UsageError: there is nothing to learn from, or `size` is too small for the letters.
        """
        lines = sorted(line for line in sentences if line)
        if not lines:
            raise UsageError("no transcript to learn a vocabulary from")
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.Train(
                sentence_iterator=iter(lines),
                model_writer=model,
                model_type=kind,
                vocab_size=size,
                hard_vocab_limit=False,
                character_coverage=1.0,
                normalization_rule_name="identity",
                pad_id=BLANK,
                unk_id=UNKNOWN,
                bos_id=-1,
                eos_id=-1,
                control_symbols=["<mask>"],
                num_threads=1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise UsageError(f"cannot learn a vocabulary of {size} pieces: {error}") from None
        vocabulary = cls(model.getvalue())
        assert vocabulary._processor.PieceToId("<mask>") == MASK
        return vocabulary

    @classmethod
    def of_letters(cls, letters: Iterable[str]) -> Vocabulary:
        """Letters in lower case, and the space; what `normalise_transcript` drops is left out.

        Raises:
            UsageError: nothing is left.
        """
        kept = {normalise_transcript(letter) for letter in letters} - {""}
        if {*letters} & {*APOSTROPHES} and kept:
            kept.add(f"{min(kept)}'{min(kept)}")  # it is one within words alone
        return cls.train(kept, len(kept) + 5, "char")

    def to_bytes(self) -> bytes:
        """The serialised sentencepiece model."""
        return self._model

    @cached_property
    def sha256(self) -> str:
        """Of the serialised model."""
        return hashlib.sha256(self._model).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Normalised text -> token ids; never BLANK or MASK."""
        return list(self._processor.EncodeAsIds(text))

    def encode_spans(self, text: str) -> list[tuple[int, int, int]]:
        """The same tokens as (id, start, end): the characters of `text` that each stands for; the
        space before a word counts with the word's first piece.

        Raises:
            UsageError: the text is not normalised, so that pieces are not a part of it.
        """
        pieces: list[str] = self._processor.EncodeAsPieces(text)
        if text and "".join(pieces) != f" {text}".replace(" ", "\u2581"):
            raise UsageError(f"text {text!r}: must be normalised, single spaces between words")
        ends = list(itertools.accumulate(map(len, pieces), initial=-1))  # -1: a space before it all
        spans = ((max(0, start), end) for start, end in itertools.pairwise(ends))
        return [(i, *span) for i, span in zip(self.encode(text), spans, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids -> text; BLANK and MASK are skipped."""
        return str(self._processor.DecodeIds([i for i in ids if i not in (BLANK, MASK)]))

    def __len__(self) -> int:
        return int(self._processor.GetPieceSize())
