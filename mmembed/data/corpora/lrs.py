"""LRS2 (BBC television) and LRS3 (TED talks): sentences of speakers whose lips are visible.

    mvlrs_v1/main/5535415699068794046/00001.mp4      LRS2, with .txt beside it
    mvlrs_v1/pretrain/5535415699068794046/00001.mp4
    train.txt  val.txt  test.txt                     LRS2: 5535415699068794046/00001, a line a clip
    pretrain/0Amg53UuRqE/00001.mp4                   LRS3, with .txt beside it
    trainval/...  test/...

A text file starts with `Text:  THE WORDS`; those of `pretrain`, where clips may be long, go on with
`WORD START END ASDSCORE` and a line for each word, in seconds. Sources: Afouras, Chung, Senior,
Vinyals and Zisserman, "Deep Audio-Visual Speech Recognition", TPAMI 2018; Afouras, Chung and
Zisserman, "LRS3-TED", arXiv 1809.00496; robots.ox.ac.uk/~vgg/data/lip_reading. Their
authors share them on request; the layout is as public programs read it, not checked against the
originals.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from mmembed.config import Seconds
from mmembed.data.checks import log_skipped
from mmembed.data.corpora.files import find_media, read_text
from mmembed.data.manifest.utterance import LATEST, Utterance
from mmembed.errors import DataError

LONGEST: Final[Seconds] = 15.0
"""Clips whose speech lasts longer are cut, where they have word times."""

TABLE: Final = "WORD START END"
LISTS: Final = {"train": "train", "val": "dev", "test": "test"}
BBC: Final = "research, by agreement with the BBC"
TED: Final = "CC BY-NC-ND 4.0"


class LrsWord(NamedTuple):
    """A word and when it is spoken, in seconds."""

    word: str
    start: Seconds
    end: Seconds


def read_lrs2(root: Path) -> list[Utterance]:
    """LRS2: sentences of British television, as videos.

    Splits are those of `train.txt`, `val.txt` and `test.txt`; all of `pretrain` is for training.
    Speakers are unknown. Clips of `pretrain` that are longer than 15 s are cut in their pauses.

    Raises:
        DataError: no videos, or a text file that is not of this form.
    """
    splits = {clip: split for name, split in LISTS.items() for clip in _list(root, f"{name}.txt")}
    pattern = r"(?P<part>main|pretrain)/(?P<video>\d+)/(?P<clip>\d{5})\.(?i:mp4)"

    def split(part: str, video: str, clip: str) -> str | None:
        return "train" if part == "pretrain" else splits.pop(f"{video}/{clip}", None)

    example = "mvlrs_v1/main/5535415699068794046/00001.mp4"
    rows = list(_read(root, pattern, "LRS2", example, BBC, split))
    unlisted = [row.key for row in rows if row.split is None]
    log_skipped(root, unlisted, "clips are in none of train.txt, val.txt and test.txt")
    log_skipped(root, list(splits), "clips of these lists have no file")
    return rows


def read_lrs3(root: Path) -> list[Utterance]:
    """LRS3: sentences of TED talks, as videos.

    Published are `test` and, of other talks, `pretrain` and `trainval`; of those, the talks that a
    checksum picks, one in 40, are for development. Speakers are unknown. Clips of `pretrain` that
    are longer than 15 s are cut in their pauses.

    Raises:
        DataError: no videos, or a text file that is not of this form.
    """
    pattern = r"(?P<part>pretrain|trainval|test)/(?P<video>[\w-]+)/(?P<clip>\d{5})\.(?i:mp4)"

    def split(part: str, video: str, clip: str) -> str:
        if part == "test":
            return "test"
        return "train" if zlib.crc32(video.encode()) % 40 else "dev"

    return list(_read(root, pattern, "LRS3", "trainval/0af00UcTOSc/50001.mp4", TED, split))


def split_words(words: list[LrsWord]) -> list[list[LrsWord]]:
    """Cut words into parts of at most `LONGEST` seconds, in the widest pauses.

    Each cut falls in the middle half of what is cut, where that has a pause, so that no part is a
    single word.
    """
    start, end = words[0].start, words[-1].end
    if end - start <= LONGEST or len(words) == 1:
        return [words]
    cuts = range(1, len(words))
    quarter = (end - start) / 4
    central = [i for i in cuts if start + quarter <= words[i].start <= end - quarter]
    cut = max(central or cuts, key=lambda i: words[i].start - words[i - 1].end)
    return split_words(words[:cut]) + split_words(words[cut:])


def _read(
    root: Path,
    pattern: str,
    corpus: str,
    example: str,
    licence: str,
    split: Callable[[str, str, str], str | None],
) -> Iterator[Utterance]:
    wordless = []
    for path, match in find_media(root, pattern, corpus, example):
        part, video, clip = match["part"], match["video"], match["clip"]
        transcript, words = _text((root / path).with_suffix(".txt"))
        if transcript is None:
            wordless.append(path.as_posix())
        row = Utterance(
            key=f"{corpus.lower()}-{part}-{video}-{clip}",
            media=path.as_posix(),
            transcript=transcript,
            language="en",
            streams=("audio", "video", "text") if transcript else ("audio", "video"),
            split=split(part, video, clip),
            licence=licence,
        )
        yield from _cut(row, split_words(words)) if words and words[-1].end > LONGEST else [row]
    log_skipped(root, wordless, "clips have no text beside them")


def _cut(row: Utterance, parts: list[list[LrsWord]]) -> Iterator[Utterance]:
    """An utterance for each part, from the middle of one pause to that of the next."""
    edges = [(a[-1].end + b[0].start) / 2 for a, b in pairwise(parts)]
    for number, (words, start, end) in enumerate(
        zip(parts, [0.0, *edges], [*edges, None], strict=True), start=1
    ):
        spoken = " ".join(word.word for word in words)
        yield replace(row, key=f"{row.key}-{number}", transcript=spoken, start=start, end=end)


def _text(path: Path) -> tuple[str | None, list[LrsWord]]:
    """The transcript and, where the file has them, the word times."""
    lines = (read_text(path) or "").splitlines()
    if not lines:
        return None, []
    label, _, transcript = lines[0].partition(":")
    if label != "Text":
        raise DataError(f"{path}:1", "transcript", "must start with 'Text:  ' and the words")
    words: list[LrsWord] = []
    table = next((i for i, line in enumerate(lines) if line.startswith(TABLE)), len(lines))
    for number, line in enumerate(lines[table + 1 :], start=table + 2):
        if not line.strip():
            break
        try:
            word, start, end = line.split()[:3]
            words.append(LrsWord(word, float(start), float(end)))
            if not all(0 <= seconds < LATEST for seconds in words[-1][1:]):
                raise ValueError("no time in a clip")
        except ValueError:
            raise DataError(f"{path}:{number}", "transcript", f"must be {TABLE}") from None
    return transcript.strip() or None, words


def _list(root: Path, name: str) -> Iterator[str]:
    """The clips that a list names; the rest of a line ("NF") is about the picture."""
    for folder in (root, root / "mvlrs_v1", root.resolve().parent):
        if (text := read_text(folder / name)) is not None:
            yield from (line.split()[0] for line in text.splitlines() if line.strip())
            return
