"""VoxCeleb2, interviews with celebrities: 6,112 speakers, a million face tracks, no words.

    dev/mp4/id00012/21Uxsk56VDQ/00001.mp4    video of the face, with audio
    dev/aac/id00012/21Uxsk56VDQ/00001.m4a    the audio alone
    test/mp4/...  test/aac/...
    vox2_meta.csv                            the set ("dev" or "test") of every speaker
    transcripts.tsv                          your own: id00012/21Uxsk56VDQ/00001 <TAB> the words

Sources: Chung, Nagrani and Zisserman, "VoxCeleb2: Deep Speaker Recognition", Interspeech 2018,
robots.ox.ac.uk/~vgg/data/voxceleb. The corpus has no transcripts: `transcripts.tsv` is for those
that a recogniser made ("pseudo-labels"), a line a clip, white space around the words dropped; the
path may go on before the speaker's folder and have a suffix.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import best_of, find_media
from mmembed.data.corpora.tables import Once, read_table
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

CLIP: Final = r"(?P<clip>(?P<speaker>id\d{5})/(?P<video>[\w-]+)/\d{5})"
KINDS: Final = ("mp4", "m4a", "wav", "flac")
"""Of the files of a clip the first of these is used."""

TRANSCRIPTS: Final = "transcripts.tsv"
SPEAKERS: Final = "vox2_meta.csv"
LICENCE: Final = "CC BY 4.0, media belong to their owners"
NO_LABELS: Final = Labels()  # one for a million rows


def read(root: Path) -> list[Utterance]:
    """VoxCeleb2: interviews with celebrities, as videos or audio, words by `transcripts.tsv`.

    Published are 5,994 speakers to train on ("dev") and 118 others ("test"). Of the former, all
    clips of one video in 50 are `heldout` and of one in 50 `dev`, so that speakers and words can be
    tested on recordings that are not in train.

    Raises:
        DataError: no clips, a line of `transcripts.tsv` that is not of its form, or a clip whose
            set is neither in the names of its folders nor in `vox2_meta.csv`.
    """
    transcripts, sets = _transcripts(root / TRANSCRIPTS), _sets(root / SPEAKERS)
    rows = best_of(
        root,
        _rows(root, transcripts, sets),
        lambda row: KINDS.index(str(row.media).rpartition(".")[2].lower()),
    )
    if transcripts:
        log_skipped(
            root, [r.key for r in rows if not r.transcript], f"clips have no {TRANSCRIPTS} line"
        )
        known = {row.key for row in rows}
        unused = [clip for clip in transcripts if _key(clip) not in known]
        log_skipped(root, unused, f"lines of {TRANSCRIPTS} have no clip")
    return rows


def _rows(root: Path, transcripts: dict[str, str], sets: dict[str, str]) -> Iterator[Utterance]:
    name = rf"{CLIP}\.(?i:{'|'.join(KINDS)})"
    example = "dev/mp4/id00012/21Uxsk56VDQ/00001.mp4"
    folder = re.compile(r"/(dev|test)/")
    for path, match in find_media(root, name, "VoxCeleb2", example):
        clip, speaker = match["clip"], match["speaker"]
        around = folder.findall(match.string)
        published = around[-1] if around else sets.get(speaker)
        if published is None:
            raise DataError(
                str(root / path), "split", f"neither a folder dev or test nor {SPEAKERS} names it"
            )
        transcript = transcripts.get(clip)
        part = {0: "heldout", 1: "dev"}.get(zlib.crc32(match["video"].encode()) % 50, "train")
        streams = ("audio", "video") if path.suffix.lower() == ".mp4" else ("audio",)
        yield Utterance(
            key=_key(clip),
            media=path.as_posix(),
            transcript=transcript,
            streams=(*streams, "text") if transcript else streams,
            speaker=f"voxceleb2-{speaker}",
            split="test" if published == "test" else part,
            licence=LICENCE,
            labels=NO_LABELS,
        )


def _key(clip: str) -> str:
    return f"voxceleb2-{clip.replace('/', '-')}"


def _sets(path: Path) -> dict[str, str]:
    """Speaker -> "dev" or "test"."""
    if not path.is_file():
        return {}
    return {row["VoxCeleb2 ID"]: row["Set"] for _, row in read_table(path, ("VoxCeleb2 ID", "Set"))}


def _transcripts(path: Path) -> dict[str, str]:
    """Clip -> words."""
    if not path.is_file():
        return {}
    transcripts, once = {}, Once()
    for line, row in read_table(path, header=("path", "words")):
        match = re.fullmatch(rf"(?:.*/)?{CLIP}(?:\.\w+)?", row["path"])
        if match is None:
            what = "must begin with the path of a clip, such as id00012/21Uxsk56VDQ/00001"
            raise DataError(f"{path}:{line}", "transcript", what)
        once(match["clip"], f"{path}:{line}")
        if row["words"]:
            transcripts[match["clip"]] = row["words"]
    return transcripts
