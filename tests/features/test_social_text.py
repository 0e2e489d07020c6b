"""Posts by hand, and rules that hold for any text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.features.social_text import emoji_to_words, normalise_post, split_hashtag


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Look: https://t.co/aB1?x=y now", "look: url now"),
        ("WWW.Example.org rocks", "url rocks"),
        ("mail me.too@mail.example.org", "mail email"),
        ("@Ann_1 and u/bob-2: hi", "user and user : hi"),
        ("and/or", "and/or"),
        ("Soooo HAAAAPPY, cool book 1000", "soo haappy, cool book 1000"),
        ("what?!!! No... no!! ! !", "what?! no. no!"),
        ("#SoHappy today #blessed #MTVAwards2018", "so happy today blessed mtv awards 2018"),
        ("#not_ok #", "not ok #"),
        ("Tom &amp; Jerry", "tom & jerry"),
        ("wow\N{FACE WITH TEARS OF JOY}\N{FACE WITH TEARS OF JOY}",
         "wow face with tears of joy face with tears of joy"),
        ("I \N{HEAVY BLACK HEART}\N{VARIATION SELECTOR-16} u", "i heavy black heart u"),
        ("\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}", "waving hand sign"),
        ("\N{WOMAN}\N{ZERO WIDTH JOINER}\N{PERSONAL COMPUTER}!", "woman personal computer !"),
        ("\U0001f1fa\U0001f1f8\U0001f1ea\U0001f1f8", "flag us flag es"),
        ("5 \N{DEGREE SIGN}C \N{COPYRIGHT SIGN}", "5 \N{DEGREE SIGN}c \N{COPYRIGHT SIGN}"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",  # joiners that spell
         "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\u0915\u094d\u200d\u0937", "\u0915\u094d\u200d\u0937"),
        ("  ", ""),
    ],
)  # fmt: skip
def test_posts_by_hand(written: str, expected: str) -> None:
    assert normalise_post(written) == expected


@pytest.mark.parametrize(
    ("tag", "words"),
    [
        ("sohappy", "sohappy"),
        ("SoHappy", "So Happy"),
        ("HTMLPage", "HTML Page"),
        ("USA", "USA"),
        ("win2day", "win 2 day"),
        ("_a__b_", "a b"),
        ("\u041c\u043e\u0439\u0414\u0435\u043d\u044c",
         "\u041c\u043e\u0439 \u0414\u0435\u043d\u044c"),
    ],
)  # fmt: skip
def test_hashtags(tag: str, words: str) -> None:
    assert split_hashtag(tag) == words


def test_a_lone_indicator_stays_a_letter() -> None:
    assert emoji_to_words("\U0001f1fax") == "ux"


@given(st.text(st.characters(exclude_characters="&")))
@settings(max_examples=500, derandomize=True, deadline=None)
def test_twice_is_once(text: str) -> None:
    once = normalise_post(text)
    assert normalise_post(once) == once
    assert once == " ".join(once.split())
