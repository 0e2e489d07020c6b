"""Posts from social media, rewritten in plain words for text models.

After the preprocessing of arXiv 2210.15842 (ekphrasis: Baziotis et al. 2017; emoji to words), by
rules alone and for any language. Deviations: an elongated word keeps two letters where ekphrasis
looks for a word of its dictionary; a hashtag is split by its capitals, digits and underscores,
not by word frequencies; nothing is spelled out or corrected.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

URL: Final = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
EMAIL: Final = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
USER: Final = re.compile(r"(?<!\w)(?:@\w+|/?u/[\w-]+)")
HASHTAG: Final = re.compile(r"#(\w+)")
# A new word begins at a capital after a small letter, at a capital before a small letter, and
# between a letter and a digit.
HASHTAG_WORD: Final = re.compile(r"[^\W\d_]+|\d+")
ELONGATION: Final = re.compile(r"([^\W\d_])\1{2,}")
REPETITION: Final = re.compile(r"([!?.,])(?:\s*\1)+")
JOINER, VARIATION = "\N{ZERO WIDTH JOINER}", "\N{VARIATION SELECTOR-16}"
KEYCAP = "\N{COMBINING ENCLOSING KEYCAP}"


def normalise_post(text: str) -> str:
    """A post in small letters and single spaces.

    Links become "url", mail addresses "email", users "user"; hashtags lose their sign and are
    split; emoji become their Unicode names; a letter three times in a row or more stays twice, a
    punctuation mark once.
    """
    text = unicodedata.normalize("NFC", html.unescape(text))
    text = URL.sub(" url ", text)
    text = EMAIL.sub(" email ", text)
    text = USER.sub(" user ", text)
    text = HASHTAG.sub(lambda match: f" {split_hashtag(match[1])} ", text)
    text = emoji_to_words(text).lower()
    text = ELONGATION.sub(r"\1\1", text)
    text = REPETITION.sub(r"\1", text)
    return " ".join(text.split())


def split_hashtag(tag: str) -> str:
    """`"SoHappy2day"` -> `"So Happy 2 day"`; a tag in small letters stays one word."""
    words: list[str] = []
    for run in HASHTAG_WORD.findall(tag):
        word = ""
        for place, letter in enumerate(run):
            after_small = word[-1:].islower()
            before_small = run[place + 1 : place + 2].islower()
            if word and letter.isupper() and (after_small or before_small):
                words.append(word)
                word = ""
            word += letter
        words.append(word)
    return " ".join(words)


def emoji_to_words(text: str) -> str:
    """Emoji as their Unicode names in small letters; skin tones and joiners between emoji go.

    Two regional indicators are a flag: "flag" and the letters of its country.
    """
    words: list[str] = []
    letters = ""
    after_emoji = False
    for character in text:
        code = ord(character)
        if 0x1F1E6 <= code <= 0x1F1FF:  # a regional indicator
            letters += chr(code - 0x1F1E6 + ord("a"))
            if len(letters) == 2:
                words.append(f" flag {letters} ")
                letters = ""
            after_emoji = True
            continue
        words.append(letters)
        letters = ""
        if _is_emoji(character):
            words.append(f" {unicodedata.name(character, 'emoji').lower()} ")
            after_emoji = True
        elif character in (VARIATION, KEYCAP) or 0x1F3FB <= code <= 0x1F3FF:
            pass  # says how to draw the character before it; the codes are skin tones
        elif character == JOINER and after_emoji:
            pass  # elsewhere a joiner is a part of spelling
        else:
            words.append(character)
            after_emoji = False
    return "".join([*words, letters])


def _is_emoji(character: str) -> bool:
    """Symbols of the blocks that hold emoji; "(c)", degrees and the like are none."""
    place = ord(character)
    pictures = 0x2600 <= place <= 0x27BF or 0x2B00 <= place <= 0x2BFF or place >= 0x1F000
    return pictures and unicodedata.category(character) == "So"
