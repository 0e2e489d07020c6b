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

from mmembed.data.corpora.files import SOUND, best_of, find_media, nearest_folder
from mmembed.data.folders import files_below
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

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
SILENCES: Final = ("sil", "sp")
LICENCE: Final = "CC BY 4.0"


def read(root: Path) -> list[Utterance]:
    """GRID: audio-visual English commands.

    Where a clip exists as video and as audio, the video is used, which has audio too.

    The talker is the nearest folder named `s` and a number; clips outside of such a folder have
    no speaker. Of the talkers' sorted commands every tenth is held out and the one after it is for
    development, for all talkers; commands that only other clips hold have no split.

    Raises:
        DataError: no clips, or an alignment (`*.align`) that has other words than its name.
    """
    name = rf"(?P<stem>{STEM})(?:\.(?P<video>(?i:mpg|mp4|avi))|{SOUND})"
    found = [
        (path, match["stem"], bool(match["video"]), nearest_folder(root, path, r"s\d+"))
        for path, match in find_media(root, name, "GRID", "s1/video/bbaf2n.mpg")
    ]
    commands = sorted({stem for _, stem, _, talker in found if talker})
    splits = {c: {0: "heldout", 1: "dev"}.get(i % 10, "train") for i, c in enumerate(commands)}
    _check_alignments(root)
    rows = [
        Utterance(
            key=f"grid-{talker[0] if talker else (root / path).resolve().parent.name}-{stem}",
            media=path.as_posix(),
            transcript=sentence(stem),
            language="en",
            streams=("audio", "video", "text") if is_video else ("audio", "text"),
            speaker=f"grid-{talker[0]}" if talker else None,
            split=splits.get(stem),
            licence=LICENCE,
        )
        for path, stem, is_video, talker in found
    ]
    return best_of(root, rows, lambda row: "video" not in (row.streams or ()))


def sentence(stem: str) -> str:
    """`"bbaf2n"` -> `"bin blue at f two now"`."""
    return " ".join(words[letter] for words, letter in zip(WORDS, stem, strict=True))


def _check_alignments(root: Path) -> None:
    """Alignments have a line a word: start, end (25,000 units a second), word."""
    for path in files_below(root, ".align"):
        if not re.fullmatch(STEM, path.stem):
            continue
        words = [line.split()[-1] for line in path.read_text(encoding="utf-8").splitlines() if line]
        spoken = " ".join(word for word in words if word not in SILENCES)
        if spoken != sentence(path.stem):
            message = f"holds {spoken!r}, its name says {sentence(path.stem)!r}; fix or remove it"
            raise DataError(str(path), "transcript", message)
