"""IEMOCAP: ten actors in pairs, five sessions of scripted and improvised English conversations.

`SessionN/dialog/EmoEvaluation/DIALOGUE.txt` holds a line a turn,

    [6.2901 - 8.2357]  Ses01F_impro01_F000  neu  [2.5000, 2.5000, 2.5000]

start and end in seconds of the dialogue, turn, majority category, mean valence, activation and
dominance in [1, 5]; the lines of the single annotators below it are not read.
`SessionN/dialog/transcriptions/DIALOGUE.txt` holds the words, `SessionN/sentences/wav/DIALOGUE/
TURN.wav` the audio of a turn. The videos always show both people side by side, so that a face
cropped from them would be the wrong one half of the time: media are the audio files alone.

There is no official split. As is most common, session 5 is for testing, and as many then do,
session 4 for development: no speaker is in two splits. Where a paper trains on sessions 1 to 4,
train and dev together are its training data.

Source: Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", Language
Resources and Evaluation 42, 2008, and the label files as quoted in public code that reads them;
not checked against the original.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import decode_text, find_files
from mmembed.data.folders import files_below
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

CATEGORIES: Final = {
    "ang": "angry",
    "dis": "disgust",
    "exc": "excited",
    "fea": "fearful",
    "fru": "frustrated",
    "hap": "happy",
    "neu": "neutral",
    "oth": "other",
    "sad": "sad",
    "sur": "surprised",
    "xxx": None,  # no majority
}
SCORES: Final = ("valence", "arousal", "dominance")
SPLITS: Final = {"01": "train", "02": "train", "03": "train", "04": "dev", "05": "test"}
LICENCE: Final = "research only, by licence agreement with SAIL of USC"

_NUMBER: Final = r"\d+(?:\.\d+)?"
_TURN: Final = r"(?P<turn>(?P<dialogue>Ses(?P<session>0[1-5])\w+)_(?P<person>[FM])\w+)"
_LABEL: Final = re.compile(
    rf"\[(?P<start>{_NUMBER}) - {_NUMBER}\]\s+{_TURN}\s+(?P<category>[a-z]{{3}})\s+"
    rf"\[(?P<scores>{_NUMBER}, {_NUMBER}, {_NUMBER})\]"
)
_WORDS: Final = re.compile(rf"{_TURN}\s+\[[\d.]+-[\d.]+\]:?\s*(?P<words>.*)")


def read(root: Path) -> list[Utterance]:
    """IEMOCAP: acted English conversations of two, audio of each turn.

    Raises:
        DataError: no label files, or a label that is not one of `CATEGORIES`.
    """
    example = "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt"
    dialogues: dict[str, list[re.Match[str]]] = defaultdict(list)
    words: dict[str, str] = {}
    for path, _ in find_files(root, r"Ses0[1-5]\w+\.txt", "IEMOCAP labels", example):
        kind = (root / path).resolve().parent.name  # motion capture has files of the same names
        if kind == "EmoEvaluation":
            for line in decode_text(root / path, fix_encoding=True).split("\n"):
                if match := _LABEL.match(line):
                    dialogues[match["dialogue"]].append(match)
        elif kind == "transcriptions":
            for line in decode_text(root / path, fix_encoding=True).split("\n"):
                if match := _WORDS.match(line):
                    words[match["turn"]] = match["words"].strip()
    if not dialogues:
        raise DataError(str(root), "empty", f"holds no label file of IEMOCAP, such as {example}")
    audio = {
        path.stem: path.relative_to(root).as_posix()
        for path in files_below(root, ".wav")
        if path.name.startswith("Ses0") and "sentences" in path.parts
    }
    utterances = []
    for dialogue, labels in sorted(dialogues.items()):
        for turn, match in enumerate(sorted(labels, key=lambda m: float(m["start"]))):
            name, category = match["turn"], match["category"]
            if category not in CATEGORIES:
                message = f"emotion {category!r} is none of {', '.join(sorted(CATEGORIES))}"
                raise DataError(name, "label", message)
            values = map(float, match["scores"].split(","))
            scores = dict(zip(SCORES, values, strict=True))
            utterances.append(
                Utterance(
                    key=f"iemocap-{name}",
                    media=audio.get(name),
                    transcript=words.get(name),
                    language="en",
                    speaker=f"iemocap-{match['session']}{match['person']}",
                    dialogue=f"iemocap-{dialogue}",
                    turn=turn,
                    split=SPLITS[match["session"]],
                    licence=LICENCE,
                    labels=Labels(category=CATEGORIES[category], scores=scores),
                )
            )
    without = [utterance.key for utterance in utterances if utterance.media is None]
    log_skipped(root, without, "turns have no audio file: words alone")
    return utterances
