"""URDU, emotional speech cut from Urdu talk shows: 38 speakers, 4 emotions x 100 utterances.

Published as folders of emotions with names speaker_file_emotion+number, `Angry/SM1_F1_A01.wav`,
where SM is a man and SF a woman. Source of the layout: github.com/siddiquelatif/URDU-Dataset and
Latif, Qayyum, Usman and Qadir, "Cross Lingual Speech Emotion Recognition: Urdu vs. Western
Languages", FIT 2018.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import SOUND, find_media
from mmembed.data.manifest.utterance import Labels, Utterance

EMOTIONS: Final = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
LICENCE: Final = "research"


def read(root: Path) -> list[Utterance]:
    """URDU: emotional speech out of Urdu talk shows, without words.

    There are no splits: the corpus publishes none, and the experiment splits the 38 speakers.
    """
    name = r"(?P<stem>(?P<speaker>S[MF]\d+)_F\d+_(?P<emotion>[AHNS])\d+)" + SOUND
    return [
        Utterance(
            key=f"urdu-{match['stem']}",
            media=path.as_posix(),
            language="ur",
            streams=("audio",),
            speaker=f"urdu-{match['speaker']}",
            licence=LICENCE,
            labels=Labels(category=EMOTIONS[match["emotion"]]),
        )
        for path, match in find_media(root, name, "URDU", "Angry/SM1_F1_A01.wav")
    ]
