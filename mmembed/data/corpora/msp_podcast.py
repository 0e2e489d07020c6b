"""MSP-Podcast, spontaneous emotional English speech out of podcasts, and BIIC-Podcast in Mandarin.

    Audios/MSP-PODCAST_0001_0008.wav
    Labels/labels_consensus.csv     FileName, EmoClass, EmoAct, EmoVal, EmoDom, SpkrID, ...
    Labels/labels_consensus.json    the same, by file name
    Transcripts/MSP-PODCAST_0001_0008.txt

Their authors share both corpora on request only; this layout is that of releases 1.6
(which spells "concensus") to 2.0 as public programs read it, not checked against the originals.
Sources: Lotfian and Busso, IEEE Transactions on Affective Computing 10(4), 2019,
lab-msp.com/MSP/MSP-Podcast.html, github.com/msplabresearch/MSP-Podcast_Challenge; Upadhyay et al.,
"An Intelligent Infrastructure Toward Large Scale Naturalistic Affective Speech Corpora Collection",
ACII 2023, biic.ee.nthu.edu.tw, for BIIC-Podcast, of which public programs say that its labels have
the shape of MSP-Podcast's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import SOUND, find_media, read_text
from mmembed.data.corpora.tables import Once, read_table
from mmembed.data.manifest.utterance import Labels, Utterance, portable_key
from mmembed.errors import DataError
from mmembed.io.json import parse_json

EMOTIONS: Final = {
    "N": "neutral",
    "H": "happy",
    "S": "sad",
    "A": "angry",
    "F": "fearful",
    "D": "disgust",
    "U": "surprised",
    "C": "contempt",
    "O": "other",
    "X": None,  # the raters did not agree
    "": None,  # not published
}
SCORES: Final = {"EmoAct": "arousal", "EmoVal": "valence", "EmoDom": "dominance"}
LOWEST, HIGHEST = 1.0, 7.0  # of the scores
SPLITS: Final = {
    "Train": "train", "Development": "dev", "Validation": "dev", "Test": "test", "Test1": "test",
    "Test2": "test", "Test3": "test",
}  # fmt: skip
LABELS: Final = tuple(
    f"labels_{word}.{kind}" for kind in ("csv", "json") for word in ("consensus", "concensus")
)
UNKNOWN: Final = ("", "Unknown", "unknown")
LICENCE: Final = "research, by agreement with the authors"


def read_msp(root: Path) -> list[Utterance]:
    """MSP-Podcast: spontaneous emotional English speech.

    The scores arousal, valence and dominance lie in [1, 7]; of several test sets the score
    "test_set" is 1, 2 or 3. Clips of unidentified speakers have no speaker.

    Raises:
        DataError: no table of labels, a label that is not of the corpus, or no audio files.
    """
    return _read(root, "msp_podcast", "MSP-Podcast", "en", "Audios/MSP-PODCAST_0001_0008.wav")


def read_biic(root: Path) -> list[Utterance]:
    """BIIC-Podcast: spontaneous emotional Mandarin speech, labelled as MSP-Podcast.

    Raises:
        DataError: as for MSP-Podcast.
    """
    return _read(root, "biic_podcast", "BIIC-Podcast", "zh", "Audios/BIIC-PODCAST_0001_0001.wav")


def _read(root: Path, name: str, corpus: str, language: str, example: str) -> list[Utterance]:
    labels = "|".join(map(re.escape, LABELS))
    name_of_either = rf"(?P<table>{labels})|(?!\.)[^/]+{SOUND}"
    audio: dict[str, Path] = {}
    tables: dict[str, Path] = {}
    twice: list[str] = []
    for path, match in find_media(root, name_of_either, corpus, example):
        if match["table"]:
            tables[path.name] = path
        elif path.stem in audio:
            twice.append(path.as_posix())
        else:
            audio[path.stem] = path
    log_skipped(root, twice, "files occur more than once, or in another form, and are left out")
    table = next((root / tables[label] for label in LABELS if label in tables), None)
    if table is None:
        raise DataError(
            str(root), "empty", f"holds no file of {corpus}'s labels, such as Labels/{LABELS[0]}"
        )
    rows: list[Utterance] = []
    missing: list[str] = []
    once, unlabelled = Once(), dict(audio)
    for where, row in _labels(table):
        clip = re.sub(rf"{SOUND}$", "", row["FileName"])  # tables name it with its suffix or not
        once(clip, where)
        file = unlabelled.pop(clip, None)
        if file is None:
            missing.append(row["FileName"])
            continue
        stem, known = file.stem, _read_labels(where, row)
        transcript = read_text(table.parent.parent / "Transcripts" / f"{stem}.txt")
        speaker = row.get("SpkrID", "")
        rows.append(
            Utterance(
                key=f"{name}-{portable_key(stem)}",
                media=file.as_posix(),
                transcript=transcript,
                language=language,
                streams=("audio", "text") if transcript else ("audio",),
                speaker=None if speaker in UNKNOWN else f"{name}-{speaker}",
                split=SPLITS[row["Split_Set"]],
                licence=LICENCE,
                labels=known,
            )
        )
    if not rows:
        labelled, found = next(iter(missing), "none"), next(iter(audio.values()), "none")
        message = f"no clip of {table.name} (such as {labelled}) has a file (such as {found})"
        raise DataError(str(root), "empty", message)
    log_skipped(root, missing, f"clips have labels in {table.name} but no file")
    log_skipped(
        root, sorted(map(str, unlabelled.values())), f"files have no labels in {table.name}"
    )
    return rows


def _labels(table: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """(file and line, row) of every clip, in the order of the table."""
    columns = ("FileName", "EmoClass", *SCORES, "Split_Set")
    if table.suffix == ".csv":
        for line, row in read_table(table, columns):
            yield f"{table}:{line}", row
        return
    try:
        clips = parse_json(table.read_bytes().removeprefix(b"\xef\xbb\xbf"))
        rows = [
            (f"{table}: {name}", {"FileName": name, **{k: str(v) for k, v in values.items()}})
            for name, values in clips.items()
        ]
    except (ValueError, AttributeError):
        raise DataError(str(table), "table", "must be a JSON object of objects by file") from None
    for where, row in rows:
        if missing := [name for name in columns if name not in row]:
            raise DataError(where, "table", f"lacks {', '.join(missing)}")
        yield where, row


def _read_labels(where: str, row: Mapping[str, str]) -> Labels:
    if row["EmoClass"] not in EMOTIONS:
        allowed = " ".join(filter(None, EMOTIONS))
        raise DataError(where, "label", f"EmoClass {row['EmoClass']!r}: one of {allowed}")
    scores = {}
    for column, score in SCORES.items():
        if not (value := row[column]):
            continue
        try:
            scores[score] = float(value)
        except ValueError:
            scores[score] = LOWEST - 1
        if not LOWEST <= scores[score] <= HIGHEST:
            raise DataError(where, "label", f"{column} {value!r}: {LOWEST:g} to {HIGHEST:g}")
    if row["Split_Set"] not in SPLITS:
        allowed = ", ".join(SPLITS)
        raise DataError(where, "label", f"Split_Set {row['Split_Set']!r}: one of {allowed}")
    if row["Split_Set"][:-1] == "Test":
        scores["test_set"] = float(row["Split_Set"][-1])
    return Labels(category=EMOTIONS[row["EmoClass"]], scores=scores)
