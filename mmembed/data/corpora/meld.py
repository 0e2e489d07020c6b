"""MELD: conversations of several people from a television series, 7 emotions and 3 sentiments.

`{train,dev,test}_sent_emo.csv` hold 9,989, 1,109 and 2,610 utterances. The clips are
`train_splits/diaX_uttY.mp4`, `dev_splits_complete/...` and `output_repeated_splits_test/...`;
dialogues are counted anew in each split. Source: Poria et al., "MELD: a multimodal multi-party
dataset for emotion recognition in conversations", ACL 2019, and github.com/declare-lab/MELD, whose
issues 9, 20, 22, 27 and 39 list what is wrong with the clips: dia110_utt7 of dev is missing,
dia125_utt3 of train is damaged, some are cut wrongly and last minutes (dia38_utt4 and dia220_utt0
of test, dia309_utt0 of train), some have no row in the tables, and some of test come a second time
as final_videos_testdiaX_uttY.mp4, which its authors say to ignore. Clips not checked against the
original.

The encoding of words is fixed: the published tables hold apostrophes as Windows-1252 bytes. The
times in the tables are those in the episode, not in the clip, and are not used.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import find_files, find_media
from mmembed.data.corpora.tables import Once, read_table
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.errors import DataError

EMOTIONS: Final = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
"""In the order of the numbers that feature files use."""

SENTIMENTS: Final = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}
SENTIMENT_CLASS: Final = "sentiment_class"  # a class: not on the scale of Labels.sentiment
COLUMNS: Final = ("Utterance", "Speaker", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
LICENCE: Final = "GPL-3.0 (annotations); the clips are the series' owners'"

Clips = dict[tuple[str, int, int], str]


def read(root: Path) -> list[Utterance]:
    """MELD: conversations of a television series, with clips or as text alone.

    An utterance without a clip is text alone.

    Raises:
        DataError: no table, two different ones of a split, or a row that is not one of MELD.
    """
    tables: dict[str, Path] = {}
    name = r"(?P<split>train|dev|test)_sent_emo\.csv"
    for path, match in find_files(root, name, "MELD", "MELD.Raw/train_sent_emo.csv"):
        first = tables.setdefault(match["split"], root / path)
        if first.read_bytes() != (root / path).read_bytes():
            raise DataError(str(root / path), "duplicate", f"differs from {first}; remove one")
    clips = _find_clips(root)
    utterances: list[Utterance] = []
    for split in ("train", "dev", "test"):
        if split in tables:
            rows = _read_table(tables[split], split, clips)
            without = [row.key for row in rows if row.media is None]
            if clips:
                log_skipped(root, without, f"turns of {split} have no clip: words alone")
            utterances += rows
    return utterances


def _read_table(path: Path, split: str, clips: Clips) -> list[Utterance]:
    turns: Counter[int] = Counter()
    found = []
    once = Once()
    for number, row in read_table(path, COLUMNS, fix_encoding=True, strip=False):
        try:
            dialogue, utterance = int(row["Dialogue_ID"]), int(row["Utterance_ID"])
            labels = Labels(
                category=EMOTIONS[EMOTIONS.index(row["Emotion"].lower())],
                scores={SENTIMENT_CLASS: SENTIMENTS[row["Sentiment"].lower()]},
            )
        except (ValueError, KeyError):
            values = ", ".join(f"{name} {row[name]!r}" for name in COLUMNS[2:])
            allowed = f"emotions are {', '.join(EMOTIONS)}, sentiments {', '.join(SENTIMENTS)}"
            message = f"{values}: {allowed}, ids whole numbers"
            raise DataError(f"{path}:{number}", "label", message) from None
        once(f"dia{dialogue}_utt{utterance}", f"{path}:{number}")
        found.append((dialogue, utterance, row, labels))
    utterances = []
    for dialogue, utterance, row, labels in sorted(found, key=lambda item: item[:2]):
        utterances.append(
            Utterance(
                key=f"meld-{split}-dia{dialogue}_utt{utterance}",
                media=clips.get((split, dialogue, utterance)),
                transcript=row["Utterance"],
                language="en",
                speaker=f"meld-{row['Speaker'].strip()}",
                dialogue=f"meld-{split}-dia{dialogue}",
                turn=turns[dialogue],
                split=split,
                licence=LICENCE,
                labels=labels,
            )
        )
        turns[dialogue] += 1
    return utterances


def _find_clips(root: Path) -> Clips:
    """(split, dialogue, utterance) -> clip; the split is in the name of the folder."""
    name = r"(?P<again>final_videos_test)?dia(?P<dialogue>\d+)_utt(?P<utterance>\d+)"
    name += r"\.(?i:mp4|wav|flac)"
    try:
        found = list(find_media(root, name, "MELD clips", "train_splits/dia0_utt0.mp4"))
    except DataError as error:
        if error.reason != "empty":
            raise
        return {}  # the tables alone
    clips: Clips = {}
    # An mp4 before audio made of it, the usual name before "final_videos_test...".
    best = sorted(found, key=lambda f: (f[1]["again"] or "", f[0].suffix.lower() != ".mp4"))
    for path, match in best:
        folders = [folder.lower() for folder in reversed(path.parts[:-1])]
        splits = (s for folder in folders for s in ("train", "dev", "test") if s in folder)
        if split := next(splits, None):
            turn = (split, int(match["dialogue"]), int(match["utterance"]))
            clips.setdefault(turn, path.as_posix())
    return clips
