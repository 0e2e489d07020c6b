"""GRID: audio-visual English commands of six words, 34 talkers x 1,000 clips of 3 s.

A file name spells the command: `bbaf2n` is "bin blue at f two now". Source of the grammar: Cooke,
Barker, Cunningham and Shao, "An audio-visual corpus for speech perception and automatic speech
recognition", JASA 120(5), 2006, table I. Published (spandh.dcs.shef.ac.uk/gridcorpus and
zenodo.org/records/3625687) as videos `s1/bbaf2n.mpg`, audio of better quality
`audio_25k/s1/bbaf2n.wav` and alignments `alignments/s1/bbaf2n.align`; talker 21 has no videos.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, best_of, decode_text, find_media, nearest_folder
from mmembed.data.folders import files_below
from mmembed.data.manifest.timed_words import TimedWord, check_words
from mmembed.data.manifest.utterance import LATEST, Utterance
from mmembed.errors import DataError
from mmembed.io.json import shown

WORDS: Final = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # no w, it is the only long one
    {
        "z": "zero", "1": "one", "2": "two", "3": "three", "4": "four",
        "5": "five", "6": "six", "7": "seven", "8": "eight", "9": "nine",
    },
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)  # fmt: skip
"""What the letters of a file name stand for, position by position."""

STEM: Final = "".join(f"[{''.join(words)}]" for words in WORDS)
TALKER: Final = r"s\d+"
SILENCES: Final = ("sil", "sp")
UNITS: Final = 25_000
"""Of the times in alignments, in a second."""

LICENCE: Final = "CC BY 4.0"


def read(root: Path) -> list[Utterance]:
    """GRID: audio-visual English commands.

    Where a clip exists as video and as audio, the video is used, which has audio too.

    The talker is the nearest folder named `s` and a number; clips outside of such a folder have
    no speaker. Of the talkers' sorted commands every tenth is held out and the one after it is for
    development, for all talkers; commands that only other clips hold have no split. Words have the
    times of the clip's alignment, where there is one.

    Raises:
        DataError: no clips, or an alignment (`*.align`) that has other words than its name, or no
            times of words.
    """
    name = rf"(?P<stem>{STEM})(?:\.(?P<video>(?i:mpg|mp4|avi))|{SOUND})"
    found = [
        (path, match["stem"], bool(match["video"]), nearest_folder(root, path, TALKER))
        for path, match in find_media(root, name, "GRID", "s1/video/bbaf2n.mpg")
    ]
    commands = sorted({stem for _, stem, _, talker in found if talker})
    splits = {c: {0: "heldout", 1: "dev"}.get(i % 10, "train") for i, c in enumerate(commands)}
    alignments = _read_alignments(root)
    rows = [
        Utterance(
            key=f"grid-{_speaker(root, path)}-{stem}",
            media=path.as_posix(),
            transcript=sentence(stem),
            language="en",
            streams=("audio", "video", "text") if is_video else ("audio", "text"),
            speaker=f"grid-{talker[0]}" if talker else None,
            split=splits.get(stem),
            licence=LICENCE,
            words=alignments.get((_speaker(root, path), stem)),
        )
        for path, stem, is_video, talker in found
    ]
    return best_of(root, rows, lambda row: "video" not in (row.streams or ()))


def sentence(stem: str) -> str:
    """`"bbaf2n"` -> `"bin blue at f two now"`."""
    return " ".join(words[letter] for words, letter in zip(WORDS, stem, strict=True))


def _speaker(root: Path, path: Path) -> str:
    """Of the talker, or where there is none of the folder that a file lies in."""
    talker = nearest_folder(root, path, TALKER)
    return talker[0] if talker else (root / path).resolve().parent.name


def _read_alignments(root: Path) -> dict[tuple[str, str], tuple[TimedWord, ...]]:
    """The words of clips by talker and command."""
    found: dict[tuple[str, str], tuple[TimedWord, ...]] = {}
    for path in files_below(root, ".align"):
        if re.fullmatch(STEM, path.stem):
            words = _read_alignment(path)
            spoken, named = " ".join(word.text for word in words), sentence(path.stem)
            try:
                if spoken != named:
                    raise ValueError(f"holds {spoken!r}, its name says {named!r}; fix or remove it")
                check_words(words, named, LATEST)
            except ValueError as error:
                raise DataError(str(path), "transcript", str(error)) from None
            found[_speaker(root, path), path.stem] = words
    return found


def _read_alignment(path: Path) -> tuple[TimedWord, ...]:
    """A line a word: start, end (`UNITS` a second), word."""
    words = []
    for number, line in enumerate(decode_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            start, end, word = line.split()
            times = [int(time) / UNITS for time in (start, end)]
        except (ValueError, OverflowError):
            message = f"must be start, end and word, found {shown(line)}; fix or remove the file"
            raise DataError(f"{path}:{number}", "transcript", message) from None
        if word not in SILENCES:
            words.append(TimedWord(word, *times))
    return tuple(words)
