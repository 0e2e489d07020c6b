"""The user's own clips: a folder of files without tables: [SPLIT/][SPEAKER/].../CLIP.mp4.

A folder directly below the root with the name of a split (train, dev, test, heldout; val, valid and
validation are dev) is that split. The next folder, or the first one where there is no split, is the
speaker; clips outside of such a folder have no speaker, and deeper folders have no meaning.
`CLIP.txt` beside a clip holds its words. Of audio and video of the same name, the video is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmembed.data.corpora.files import SPLIT_NAMES, best_of, read_text
from mmembed.data.folders import SOUND_SUFFIXES, media_below
from mmembed.data.manifest.utterance import Utterance, as_text, portable_key
from mmembed.errors import DataError


def read(root: Path) -> list[Utterance]:
    """Any folder of clips: [SPLIT/][SPEAKER/].../CLIP.mp4, with words in CLIP.txt.

    Keys and speakers start with the name of the folder, so that those of several differ.
    """
    return best_of(root, _rows(root), lambda row: str(row.media).lower().endswith(SOUND_SUFFIXES))


def _rows(root: Path) -> Iterator[Utterance]:
    corpus = root.resolve().name
    if not root.is_dir():
        raise DataError(str(root), "missing", "no such folder; name a folder of clips")
    names = media_below(root, used=".txt")
    if not names:
        raise DataError(str(root), "empty", "holds no file of clips, such as SPEAKER/CLIP.mp4")
    for path in map(Path, names):
        *folders, _ = path.parts
        split = SPLIT_NAMES.get(folders[0]) if folders else None
        speakers = folders[1:] if split else folders
        clip = path.with_suffix("").as_posix()
        transcript = read_text((root / path).with_suffix(".txt"))
        yield Utterance(
            key=portable_key(f"{corpus}-{clip}"),
            media=path.as_posix(),
            transcript=transcript,
            speaker=as_text(f"{corpus}-{speakers[0]}") if speakers else None,
            split=split,
        )
