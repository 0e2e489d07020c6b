"""VCTK, read English sentences in many accents: 109 or 110 speakers, some 400 sentences each.

    VCTK-Corpus/wav48/p225/p225_001.wav                                release 0.80
    VCTK-Corpus-0.92/wav48_silence_trimmed/p225/p225_001_mic1.flac     release 0.92
    txt/p225/p225_001.txt    of both, beside the folder of audio

Source: Yamagishi, Veaux and MacDonald, University of Edinburgh, the README of either release,
datashare.ed.ac.uk/handle/10283/3443. The text of speaker p315 was lost; p280 and p315 have
no second microphone. Of speaker-info.txt (age, gender, accent) a manifest holds nothing, and
nothing is read.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import SOUND, best_of, find_media, read_text
from mmembed.data.manifest.utterance import Utterance

LICENCE: Final = "CC BY 4.0 (0.92), ODC-By 1.0 (0.80)"


def read(root: Path) -> list[Utterance]:
    """VCTK: read English sentences in many accents, of two microphones the first.

    The corpus publishes no splits, and speakers read the same sentences: a checksum of the letters
    of a sentence sends one in 20 to `heldout` and one in 20 to `dev`, for all speakers. Without
    text there is no split, since the sentence may be one of those.
    """
    rows = best_of(root, _rows(root), lambda row: "_mic2." in str(row.media))
    log_skipped(root, [row.key for row in rows if not row.transcript], "utterances have no text")
    return rows


def _rows(root: Path) -> Iterator[Utterance]:
    name = r"(?P<stem>(?P<speaker>[ps]\d+)_\d{3})(?:_mic[12])?" + SOUND
    example = "wav48_silence_trimmed/p225/p225_001_mic1.flac"
    for path, match in find_media(root, name, "VCTK", example):
        stem, speaker = match["stem"], match["speaker"]
        corpus = (root / path).resolve().parents[2]
        transcript = read_text(corpus / "txt" / speaker / f"{stem}.txt")
        # Punctuation varies with the reader.
        letters = re.sub("[^a-z0-9]", "", (transcript or "").lower())
        split = {0: "heldout", 1: "dev"}.get(zlib.crc32(letters.encode()) % 20, "train")
        yield Utterance(
            key=f"vctk-{stem}",
            media=path.as_posix(),
            transcript=transcript,
            language="en",
            streams=("audio", "text") if transcript else ("audio",),
            speaker=f"vctk-{speaker}",
            split=split if transcript else None,
            licence=LICENCE,
        )
