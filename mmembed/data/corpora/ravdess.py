"""RAVDESS, acted emotional English speech: 24 actors, 2 statements, 8 emotions.

Names are modality-channel-emotion-intensity-statement-repetition-actor. Source of the codes:
Livingstone and Russo, PLoS ONE 13(5) e0196391, 2018, and the record of the data,
zenodo.org/records/1188976.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_files
from mmembed.data.example import Labels, Utterance

EMOTIONS: Final = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgust",
    "08": "surprised",
}
STATEMENTS: Final = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}


def read(root: Path) -> list[Utterance]:
    """RAVDESS: acted emotional English speech, sound only.

    There are no splits: two statements cannot be split by prompt, and which actors are for testing
    is for the experiment to say.
    """
    name = (
        r"(?P<stem>03-01-(?P<emotion>0[1-8])-0[12]-(?P<statement>0[12])-0[12]-(?P<actor>\d\d))"
        + SOUND
    )
    example = "Actor_01/03-01-05-01-02-01-01.wav"
    return [
        Utterance(
            key=f"ravdess-{match['stem']}",
            media=path.as_posix(),
            transcript=STATEMENTS[match["statement"]],
            language="en",
            speaker=f"ravdess-{match['actor']}",
            labels=Labels(category=EMOTIONS[match["emotion"]]),
        )
        for path, match in find_files(root, name, "RAVDESS speech", example)
    ]
