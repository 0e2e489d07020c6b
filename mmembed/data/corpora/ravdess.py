"""RAVDESS, acted emotional English speech: 24 actors, 2 statements, 8 emotions.

Names are modality-channel-emotion-intensity-statement-repetition-actor; the archives are audio
(`Audio_Speech_Actors_01-24.zip`: 1,440 files 03-01) and one of videos for each actor
(`Video_Speech_Actor_01.zip`: with audio, 01-01, and the same without it, 02-01). Source of
the codes: Livingstone and Russo, PLoS ONE 13(5) e0196391, 2018, and the record of the data,
zenodo.org/records/1188976.

Action units of the faces, as OpenFace measures them, are one vector a performance, in an
`.npz` with `ids` (N,), names of RAVDESS' videos without suffix, and `action_units` (N, 35): the
intensities, 0 to 5, of 17 units and the presence, 0 to 1, of 18, averaged over frames. Units and
ranges: Baltrusaitis, Zadeh, Lim and Morency, "OpenFace 2.0", FG 2018.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import SOUND, best_of, find_media, read_arrays
from mmembed.data.feature_files import write_features
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

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
UNITS: Final = 35
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


def convert_faces(source: Path, out: Path) -> list[Utterance]:
    """RAVDESS' faces as action units: precomputed vectors, no images.

    The stream `video` of an utterance is its vector, as one step.

    Args:
        source: the .npz, or a folder with one.
        out: gets features/all.safetensors.

    Raises:
        DataError: no such file, or arrays other than described above.
    """
    path = next(iter(sorted(source.glob("*.npz"))), source) if source.is_dir() else source
    names, units = read_arrays(path, "ids", "action_units")
    if names.ndim != 1 or units.shape != (len(names), UNITS) or not np.isfinite(units).all():
        found = f"{names.shape} and {units.shape}"
        needed = f"needs ids (N,) and finite action_units (N, {UNITS}), found {found}"
        raise DataError(str(path), "features", needed)
    rows = []
    for number, name in enumerate(map(str, names)):
        match = re.fullmatch(NAME, name)
        if match is None:
            raise DataError(f"{path}:{name}", "features", "not the name of a RAVDESS video")
        row = _utterance(match, f"features/all.safetensors#{number}")
        rows.append(replace(row, streams=("video", "text")))
    vectors = [{"video": vector[None].astype(np.float32)} for vector in units]
    write_features(out / "features" / "all.safetensors", vectors)
    return rows


def _rows(root: Path) -> Iterator[Utterance]:
    name = NAME + rf"(?:\.(?i:mp4)|{SOUND})"
    songs = []
    for path, match in find_media(root, name, "RAVDESS", "Actor_01/03-01-05-01-02-01-01.wav"):
        if match["channel"] != SPEECH:
            songs.append(path.as_posix())
        else:
            yield _utterance(match, path.as_posix())
    log_skipped(root, songs, "songs are left out, this is a corpus of speech")


def _utterance(match: re.Match[str], media: str) -> Utterance:
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
