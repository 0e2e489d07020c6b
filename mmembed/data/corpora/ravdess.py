"""RAVDESS, acted emotional English speech: 24 actors, 2 statements, 8 emotions.

Names are modality-channel-emotion-intensity-statement-repetition-actor; the archives are audio
(`Audio_Speech_Actors_01-24.zip`: 1,440 files 03-01) and one of videos for each actor
(`Video_Speech_Actor_01.zip`: with audio, 01-01, and the same without it, 02-01). Source of
the codes: Livingstone and Russo, PLoS ONE 13(5) e0196391, 2018, and the record of the data,
zenodo.org/records/1188976.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import SOUND, best_of, find_media
from mmembed.data.manifest.utterance import Labels, Utterance

EMOTIONS: Final = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful",
    "07": "disgust", "08": "surprised",
}  # fmt: skip
STATEMENTS: Final = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
MODALITIES: Final = {
    "01": ("audio", "video", "text"),
    "03": ("audio", "text"),
    "02": ("video", "text"),
}
"""Streams of a file by its modality; of one performance the first of these is used."""

NAME: Final = (
    r"(?P<modality>0[123])-(?P<performance>(?P<channel>0[12])-(?P<emotion>0[1-8])-0[12]"
    r"-(?P<statement>0[12])-0[12]-(?P<actor>\d\d))"
)
SPEECH: Final = "01"
LICENCE: Final = "CC BY-NC-SA 4.0"


def read(root: Path) -> list[Utterance]:
    """RAVDESS: acted emotional English speech, as videos or audio.

    A performance that exists as video and as audio is one utterance: the video. Songs (channel
    02) are left out. There are no splits: two statements cannot be split by prompt, and the
    experiment decides which actors are for testing.
    """
    ranks = list(MODALITIES.values())
    return best_of(
        root,
        _rows(root),
        lambda row: ranks.index(row.streams or ()),
        lambda row: row.key.removeprefix("ravdess-")[3:],  # all but the modality
    )


def _rows(root: Path) -> Iterator[Utterance]:
    name = NAME + rf"(?:\.(?i:mp4)|{SOUND})"
    songs = []
    for path, match in find_media(root, name, "RAVDESS", "Actor_01/03-01-05-01-02-01-01.wav"):
        if match["channel"] != SPEECH:
            songs.append(path.as_posix())
        else:
            yield utterance(match, path.as_posix())
    log_skipped(root, songs, "songs are left out, this is a corpus of speech")


def utterance(match: re.Match[str], media: str) -> Utterance:
    """The utterance of a file whose name matches `NAME`."""
    return Utterance(
        key=f"ravdess-{match['modality']}-{match['performance']}",
        media=media,
        transcript=STATEMENTS[match["statement"]],
        language="en",
        streams=MODALITIES[match["modality"]],
        speaker=f"ravdess-{match['actor']}",
        licence=LICENCE,
        labels=Labels(category=EMOTIONS[match["emotion"]]),
    )
