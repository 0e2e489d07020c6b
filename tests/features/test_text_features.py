"""Transcripts in several scripts, and vocabularies that come back and never depend on order."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import CorruptError, UsageError
from mmembed.features.text import BLANK, MASK, UNKNOWN, Vocabulary, normalise_transcript

SENTENCE = "the quick brown fox jumps over a lazy dog's back and runs away from it again"
WORDS = SENTENCE.split()


def sentences(count: int = 60) -> list[str]:
    rng = random.Random(0)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 8))) for _ in range(count)]


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.train(sentences(), 60)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Hello,  World!", "hello world"),
        ("I don't 'think' so.", "i don't think so"),
        ("it\N{RIGHT SINGLE QUOTATION MARK}s rock 'n' roll", "it's rock n roll"),
        ("well-known\tco-operation\n", "well known co operation"),
        ("route 66 \N{EN DASH} 3.5 km", "route 66 3 5 km"),
        ("STRA\N{LATIN SMALL LETTER SHARP S}E, \N{LATIN CAPITAL LETTER U WITH DIAERESIS}ber",
         "stra\N{LATIN SMALL LETTER SHARP S}e \N{LATIN SMALL LETTER U WITH DIAERESIS}ber"),
        ("e\N{COMBINING ACUTE ACCENT}te\N{COMBINING ACUTE ACCENT}",
         "\N{LATIN SMALL LETTER E WITH ACUTE}t\N{LATIN SMALL LETTER E WITH ACUTE}"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442, \u041c\u0418\u0420!",  # Russian
         "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440"),
        ("\u0645\u0631\u062d\u0628\u0627\u061f", "\u0645\u0631\u062d\u0628\u0627"),  # Arabic
        ("\u0928\u092e\u0938\u094d\u0924\u0947\u0964",  # Hindi: the vowel signs are marks, kept
         "\u0928\u092e\u0938\u094d\u0924\u0947"),
        ("\u4f60\u597d\u3002\u4e16\u754c", "\u4f60\u597d \u4e16\u754c"),  # Chinese
        ("?! ...", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_normalises(written: str, expected: str) -> None:
    assert normalise_transcript(written) == expected


@given(st.text())
@settings(max_examples=500, derandomize=True, deadline=None)
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise_transcript(text)
    assert normalise_transcript(once) == once
    assert once == " ".join(once.split())


def test_reserved_ids_never_come_from_text(vocabulary: Vocabulary) -> None:
    assert (BLANK, UNKNOWN, MASK) == (0, 1, 2) and len(vocabulary) <= 60
    for text in [*sentences(), "<mask> the", "<pad> fox", "<unk>", "a\u2581b"]:
        assert not {BLANK, MASK} & set(vocabulary.encode(text))


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_text_comes_back(kind: str) -> None:
    vocabulary = Vocabulary.train(sentences(), 60, kind)  # type: ignore[arg-type]
    letters = sorted(set("".join(WORDS)))
    rng = random.Random(1)
    unseen = [
        " ".join("".join(rng.choices(letters, k=rng.randint(1, 6))) for _ in range(4))
        for _ in range(20)
    ]
    for text in [*sentences(10), *unseen, ""]:
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text and UNKNOWN not in ids
        spaced = [i for token in ids for i in (BLANK, token, MASK)]
        assert vocabulary.decode(spaced) == text


def test_order_of_the_sentences_does_not_matter(vocabulary: Vocabulary) -> None:
    shuffled = sentences()
    random.Random(2).shuffle(shuffled)
    again = Vocabulary.train([*shuffled, ""], 60)
    assert again.to_bytes() == vocabulary.to_bytes() and again.sha256 == vocabulary.sha256
    copy = Vocabulary(vocabulary.to_bytes())
    assert copy.encode("the fox") == vocabulary.encode("the fox") and len(copy) == len(vocabulary)


def test_letters_never_seen_are_unknown(vocabulary: Vocabulary) -> None:
    assert UNKNOWN in vocabulary.encode("the \N{GREEK SMALL LETTER OMEGA} fox")
    assert vocabulary.encode("") == []


def test_asks_for_what_cannot_be_learned() -> None:
    with pytest.raises(UsageError, match="no transcript"):
        Vocabulary.train(["", ""], 60)
    with pytest.raises(UsageError, match="vocabulary of 8 pieces") as caught:
        Vocabulary.train(sentences(), 8)  # fewer than there are letters
    assert "\n" not in str(caught.value)


def test_one_sentence_is_enough_for_its_letters() -> None:
    vocabulary = Vocabulary.train(["good day"], 300)
    assert vocabulary.decode(vocabulary.encode("good day")) == "good day"


@pytest.mark.parametrize("damage", [b"", b"not a model", None])
def test_damaged_bytes_are_told(vocabulary: Vocabulary, damage: bytes | None) -> None:
    whole = vocabulary.to_bytes()
    with pytest.raises(CorruptError, match="sentencepiece") as caught:
        Vocabulary(whole[: len(whole) // 2] if damage is None else damage)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_spans_are_the_characters_of_the_pieces(kind: str) -> None:
    vocabulary = Vocabulary.train(sentences(), 60, kind)  # type: ignore[arg-type]
    for text in [*sentences(10), "fox \N{GREEK SMALL LETTER OMEGA} fox", "a", ""]:
        spans = vocabulary.encode_spans(text)
        assert [token for token, _, _ in spans] == vocabulary.encode(text)
        assert "".join(text[start:end] for _, start, end in spans) == text
        for token, start, end in spans:
            if token != UNKNOWN:
                assert vocabulary.decode([token]) == text[start:end].strip()
    with pytest.raises(UsageError, match="single spaces"):
        vocabulary.encode_spans("the  fox")
