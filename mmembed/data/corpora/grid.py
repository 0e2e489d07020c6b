"""GRID: talkers in front of a camera speak commands of six words, s1/video/bbaf2n.mpg.

A file name has one letter for each word: bbaf2n = bin blue at f two now. Where word alignments
are there (align/s1/bbaf2n.align or s1/align/bbaf2n.align) they must say the same.

Cooke, Barker, Cunningham and Shao, An audio-visual corpus for speech perception and automatic
speech recognition, JASA 120(5), 2006. https://doi.org/10.5281/zenodo.3625687
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import Clip, find_clips, first_of_each
from mmembed.data.example import Utterance
from mmembed.errors import DataError

COMMANDS: Final = {"b": "bin", "l": "lay", "p": "place", "s": "set"}
COLOURS: Final = {"b": "blue", "g": "green", "r": "red", "w": "white"}
PREPOSITIONS: Final = {"a": "at", "b": "by", "i": "in", "w": "with"}
DIGITS: Final = {
    "z": "zero", "1": "one", "2": "two", "3": "three", "4": "four",
    "5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine",
}  # fmt: skip
ADVERBS: Final = {"a": "again", "n": "now", "p": "please", "s": "soon"}

_SENTENCE: Final = r"[blps][bgrw][abiw][a-vx-z][z1-9][anps]"
_SPLIT: Final = {0: "heldout", 5: "dev"}


def read(root: Path) -> list[Utterance]:
    """All clips below `root`; media is relative to it.

    Clips outside a folder named like a talker (s1 to s34) have no speaker.

    Raises:
        DataError: nothing of the corpus is there, or an alignment holds other words.
    """
    alignments = {
        (_talker((*path.parent.parts[::-1],)), path.stem): path
        for path in sorted(root.rglob("*.align"))
    }
    utterances = []
    for clip in find_clips(root, "GRID", _SENTENCE, (".mpg", ".mpeg", ".mp4")):
        name, talker = clip.name[0], _talker(clip.folders)
        if talker and (talker, name) in alignments:
            _check(alignments[talker, name], sentence(name))
        utterances.append(
            Utterance(
                key=f"grid-{talker or 'unknown'}-{name}",
                media=clip.media,
                transcript=sentence(name),
                language="en",
                speaker=f"grid-{talker}" if talker else None,
                split=_split(name),
            )
        )
    return first_of_each(utterances)


def sentence(name: str) -> str:
    """The words that a file name stands for."""
    command, colour, preposition, letter, digit, adverb = name
    words = (
        COMMANDS[command], COLOURS[colour], PREPOSITIONS[preposition],
        letter, DIGITS[digit], ADVERBS[adverb],
    )  # fmt: skip
    return " ".join(words)


def _split(name: str) -> str:
    """By letter and digit, of which each talker says all pairs equally often.

    A tenth each is held out and for development; no sentence is in two splits, whoever says it,
    and each letter and each digit is in all of them.
    """
    letter, digit = ord(name[3]) - ord("a"), list(DIGITS).index(name[4])
    return _SPLIT.get((letter + digit) % 10, "train")


def _talker(folders: tuple[str, ...]) -> str | None:
    return next((folder for folder in folders if re.fullmatch(r"s\d+", folder)), None)


def _check(alignment: Path, words: str) -> None:
    lines = [line.split() for line in alignment.read_text().splitlines() if line.strip()]
    aligned = " ".join(line[-1] for line in lines if line[-1] not in ("sil", "sp"))
    if aligned != words:
        raise DataError(str(alignment), "transcript", f"says {aligned!r}, its name {words!r}")
