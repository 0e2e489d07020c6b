"""LibriSpeech, read English books: 2,484 speakers, 1,000 hours.

    LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac
    LibriSpeech/train-clean-100/103/1240/103-1240.trans.txt    103-1240-0000 CHAPTER ONE MISSUS ...
    LibriSpeech/SPEAKERS.TXT                                   ID | SEX | SUBSET | MINUTES | NAME

Source: Panayotov, Chen, Povey and Khudanpur, "LibriSpeech: an ASR corpus based on public domain
audio books", ICASSP 2015, openslr.org/12.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import SOUND, find_media, read_text
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

SUBSET: Final = re.compile(r"/(train|dev|test)-(?:clean|other)(?:-\d+)?/")
LICENCE: Final = "CC BY 4.0"


def read(root: Path) -> list[Utterance]:
    """LibriSpeech: read English books.

    The split is the first word of the subset ("train-clean-100"), which a folder names or, in
    other folders, `SPEAKERS.TXT`; the speakers of the three splits are different ones.

    Raises:
        DataError: no audio files, one without transcript, or one of an unknown subset.
    """
    name = r"(?P<stem>(?P<speaker>\d+)-(?P<chapter>\d+)-\d{4})" + SOUND
    example = "LibriSpeech/train-clean-100/103/1240/103-1240-0000.flac"
    subsets = _subsets(root)
    rows, transcripts = [], dict[Path, dict[str, str]]()
    for path, match in find_media(root, name, "LibriSpeech", example):
        stem, speaker = match["stem"], match["speaker"]
        text = root / path.parent / f"{speaker}-{match['chapter']}.trans.txt"
        if text not in transcripts:
            transcripts[text] = _transcripts(text)
        lines = transcripts[text]
        if stem not in lines:
            raise DataError(str(root / path), "transcript", f"{text.name} has no line of {stem}")
        around = SUBSET.findall(match.string)
        split = around[-1] if around else subsets.get(speaker)
        if split is None:
            message = "no folder such as train-clean-100, no SPEAKERS.TXT line"
            raise DataError(str(root / path), "split", message)
        rows.append(
            Utterance(
                key=f"librispeech-{stem}",
                media=path.as_posix(),
                transcript=lines[stem],
                language="en",
                streams=("audio", "text"),
                speaker=f"librispeech-{speaker}",
                split=split,
                licence=LICENCE,
            )
        )
    unused = set().union(*transcripts.values()) - {row.key.partition("-")[2] for row in rows}
    log_skipped(root, sorted(unused), "lines of transcripts have no audio file")
    return rows


def _transcripts(path: Path) -> dict[str, str]:
    lines = (line.split(maxsplit=1) for line in (read_text(path) or "").splitlines())
    return {words[0]: words[1] for words in lines if len(words) == 2}


def _subsets(root: Path) -> dict[str, str]:
    """Speaker -> split."""
    text = read_text(root / "SPEAKERS.TXT") or read_text(root.resolve().parent / "SPEAKERS.TXT")
    columns = (line.split("|") for line in (text or "").splitlines() if line[:1] != ";")
    return {line[0].strip(): line[2].split("-")[0].strip() for line in columns if len(line) > 2}
