"""A folder of one's own clips, with nothing but files: [SPLIT/][SPEAKER/].../CLIP.mp4.

A folder directly below the root that is named as a split (train, dev, test, heldout; val, valid and
validation are dev) is one. The next folder, or the first where there is no such, is the speaker;
clips outside of any have none, deeper folders mean nothing. `CLIP.txt` beside a clip holds its
words. Sound and video of the same name are one clip, the video is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmembed.data.corpora.files import SPLIT_NAMES, best_of, read_text
from mmembed.data.folders import SOUND_SUFFIXES, media_below
from mmembed.data.manifest.utterance import Utterance, portable_key
from mmembed.errors import DataError
from mmembed.io.json import as_text


def read(root: Path) -> list[Utterance]:
    """Any folder of clips: [SPLIT/][SPEAKER/].../CLIP.mp4, with words in CLIP.txt.

    Keys and speakers start with the name of the folder, so that those of several differ.
    """
    return best_of(root, _candidates(root))


def _candidates(root: Path) -> Iterator[tuple[str, int, Utterance]]:
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
        yield (
            clip,
            int(path.suffix.lower() in SOUND_SUFFIXES),
            Utterance(
                key=portable_key(f"{corpus}-{clip}"),
                media=path.as_posix(),
                transcript=transcript,
                speaker=as_text(f"{corpus}-{speakers[0]}") if speakers else None,
                split=split,
            ),
        )
