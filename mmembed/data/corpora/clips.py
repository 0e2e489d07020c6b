"""A folder of one's own clips, with nothing but files: [SPLIT/][SPEAKER/].../CLIP.mp4.

A folder directly below the root that is named as a split (train, dev, test, heldout; val, valid and
validation are dev) is one. The next folder, or the first where there is no such, is the speaker;
clips outside of any have none, deeper folders mean nothing. `CLIP.txt` beside a clip holds its
words. Sound and video of the same name are one clip, the video is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from mmembed.data.corpora.files import best_of, find_files, read_text
from mmembed.data.example import Utterance
from mmembed.data.examples import portable_key
from mmembed.data.sources import MEDIA_SUFFIXES

SPLITS: Final = {
    "train": "train", "heldout": "heldout", "test": "test",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
}  # fmt: skip
SOUND_SUFFIXES: Final = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")


def read(root: Path) -> list[Utterance]:
    """Any folder of clips: [SPLIT/][SPEAKER/].../CLIP.mp4, with words in CLIP.txt.

    Keys and speakers start with the name of the folder, so that those of several differ.
    """
    return best_of(root, _candidates(root))


def _candidates(root: Path) -> Iterator[tuple[str, int, Utterance]]:
    corpus = root.resolve().name
    suffixes = "|".join(suffix[1:] for suffix in MEDIA_SUFFIXES)
    name = rf"(?!\.)[^/]+\.(?i:{suffixes})"
    for path, _ in find_files(root, name, "clips", "SPEAKER/CLIP.mp4"):
        *folders, _ = path.parts
        split = SPLITS.get(folders[0]) if folders else None
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
                speaker=f"{corpus}-{speakers[0]}" if speakers else None,
                split=split,
            ),
        )
