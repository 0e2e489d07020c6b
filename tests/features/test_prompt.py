"""The tokens of an emotion are exactly the tokens of its word, whatever the tokenizer."""

from __future__ import annotations

import pytest
import torch
from helpers.prompted import EMOTIONS, POSTS, TOKENIZERS, PairTokenizer

from mmembed.errors import UsageError
from mmembed.features.emotion_words import members, parse_emotions, wheel_correlation
from mmembed.features.prompt import OR, Tokens, emotion_prompt, masked_prompt

ASKED = [
    ("joy",),
    ("joy", "enjoyment"),  # one within the other
    ("enjoyment", "joy"),
    EMOTIONS,
    ("quiet pride", "quiet", "pride", "quiet hope"),  # words that come again
    ("joy", "rest or mirth", "elation"),
]


@pytest.mark.parametrize("emotions", ASKED)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_spans_are_the_words(kind: str, emotions: tuple[str, ...]) -> None:
    tokenizer = TOKENIZERS[kind]()
    words = [word for emotion in emotions for word in members(emotion)]
    text = "joy or enjoyment in quiet pride"  # the same words: they are nobody's here
    prompt = emotion_prompt(emotions, text, tokenizer)
    plain = " or ".join(filter(None, (" ".join(words[:-1]), words[-1])))
    alone = tokenizer.tokenize(plain, "", 64)
    labelled = prompt.token_label >= 0
    assert labelled.nonzero().max() < len(alone.ids)
    for number, word in enumerate(words):
        place = (prompt.token_label == number).nonzero().flatten().tolist()
        assert tokenizer.text_of(prompt.ids[prompt.token_label == number].tolist()) == word
        inside = set(range(place[0], place[-1])) - set(place)  # none but spaces between
        assert all(tokenizer.text_of([int(prompt.ids[i])]).strip() == "" for i in inside)
    rest = tokenizer.text_of(prompt.ids[~labelled].tolist())
    assert rest.count("or") == (1 if len(words) == 1 else 2)


def test_pieces_by_hand() -> None:
    prompt = emotion_prompt(
        ("joy", "enjoyment", "quiet pride"), "joyful", TOKENIZERS["wordpiece"]()
    )
    # [start] joy enjoy ##ment or q ##u ##i ##e ##t pri ##de [end] joy ##f ##u ##l [end]
    assert prompt.token_label.tolist() == [-1, 0, 1, 1, -1, 2, 2, 2, 2, 2, 2, 2, *[-1] * 6]


def test_the_or_of_another_language_is_nobodys() -> None:
    tokenizer = TOKENIZERS["wordpiece"]()
    for language, word in (("en", "or"), ("es", "o"), ("ar", "\u0623\u0648")):
        prompt = emotion_prompt(("joy", "hope", "pride"), "si", tokenizer, 64, OR[language])
        between = (prompt.token_label == -1) & (torch.arange(len(prompt.ids)) > 0)
        before = between & (torch.arange(len(prompt.ids)) < (prompt.token_label == 2).nonzero()[0])
        assert tokenizer.text_of(prompt.ids[before].tolist()).replace(" ", "") == word


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_only_the_text_is_cut(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    whole = emotion_prompt(EMOTIONS, " ".join(POSTS), tokenizer, 1000)
    least = len(tokenizer.tokenize("joy enjoyment hope optimism or quiet pride", "", 1000).ids)
    for length in (least, least + 3):
        cut = emotion_prompt(EMOTIONS, " ".join(POSTS), tokenizer, length)
        assert len(cut.ids) == length
        assert (
            cut.token_label[cut.token_label >= 0].tolist()
            == whole.token_label[whole.token_label >= 0].tolist()
        )
    with pytest.raises(UsageError, match="emotion words take"):
        emotion_prompt(EMOTIONS, "ok", tokenizer, least - 2)


def test_a_word_without_tokens_and_a_token_of_two_words_are_told() -> None:
    class Lossy(PairTokenizer):
        def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
            return Tokens((5, 6), ((0, 3), None))

    class Merging(PairTokenizer):
        def tokenize(self, first: str, second: str | None, length: int) -> Tokens:
            return Tokens((5,), ((0, len(first)),))

    with pytest.raises(UsageError, match="no token of 'hope'"):
        emotion_prompt(("joy", "hope"), "", Lossy())
    with pytest.raises(UsageError, match="one token of joy and hope"):
        emotion_prompt(("joy", "hope"), "", Merging())


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", ["emotion {mask} in tweet {text}", "{text} in tweet {mask}"])
def test_the_mask_is_found(kind: str, template: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    prompt = masked_prompt(POSTS[3], tokenizer, template=template)
    (mask,) = set(tokenizer.tokenize(tokenizer.mask_token, None, 9).ids) - {0, 1}
    assert (
        torch.equal(prompt.token_label == 0, prompt.ids == mask)
        and (prompt.token_label == 0).sum() == 1
    )
    assert set(prompt.token_label.tolist()) == {0, -1}


def test_a_mask_that_was_cut_off_is_told() -> None:
    with pytest.raises(UsageError, match="no token of"):
        masked_prompt(POSTS[3], PairTokenizer(), 5, template="{text} has emotion {mask}")


def test_emotions_as_users_write_them() -> None:
    asked = parse_emotions(" joy, anger ,hope  or optimism, quiet pride,")
    assert asked == ("joy", "anger", "hope or optimism", "quiet pride")
    assert [members(emotion) for emotion in asked[2:]] == [("hope", "optimism"), ("quiet pride",)]
    assert members("horror or awe") == ("horror", "awe")
    for bad, match in [(" ,", "no emotion"), ("joy, joy", "twice"), ("joy or, hope", "missing")]:
        with pytest.raises(UsageError, match=match):
            parse_emotions(bad)


def test_the_wheel_is_plutchiks() -> None:
    opposites = [
        ("joy", "sadness"), ("trust", "disgust"), ("fear", "anger"), ("surprise", "anticipation"),
        ("love", "remorse"), ("submission", "contempt"), ("awe", "aggressiveness"),
        ("disapproval", "optimism"), ("optimism", "pessimism"),
    ]  # fmt: skip
    for pair in opposites:
        expected = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        torch.testing.assert_close(wheel_correlation(pair), expected)
    dyads = [
        ("joy", "love", "trust"), ("trust", "submission", "fear"), ("fear", "awe", "surprise"),
        ("surprise", "disapproval", "sadness"), ("sadness", "remorse", "disgust"),
        ("disgust", "contempt", "anger"), ("anger", "aggressiveness", "anticipation"),
        ("anticipation", "optimism", "joy"),
    ]  # fmt: skip
    for dyad in dyads:
        near = wheel_correlation(dyad)
        torch.testing.assert_close(near[0, 2], torch.tensor(0.5**0.5))  # 45 degrees
        torch.testing.assert_close(near[0, 1], near[1, 2])
    with pytest.raises(UsageError, match="quiet pride"):
        wheel_correlation(EMOTIONS)
