"""A ragged corpus, as people have them: prepared and embedded by the real programs.

48 clips by number. Of some the words, the sound or the pictures are missing, of one all of them;
one could not be decoded. Speakers, dialogues, sentiment and emotions are known of some; one speaker
is heard once; no dev clip is fearful.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from helpers.encoders import write_encoder
from helpers.prepared import WORDS, example, write_prepared
from mmembed_export.extract import main as extract

from mmembed.data.example import Example
from mmembed.data.manifest.utterance import EMOTIONS, Labels

CLIPS = 48
NOTHING, BROKEN = 17, 8  # has no stream; could not be decoded
CLASSES = ("angry", "calm", "fearful", "sad")
FAILED = {"key": f"clip-{BROKEN}", "reason": "damaged", "message": f"clip-{BROKEN}: cut short"}


def split(n: int) -> str:
    return ("train", "train", "dev", "test")[n % 4]


def speaker(n: int) -> str | None:
    if n == 47:
        return "lone"
    return f"{split(n)}-{n // 4 % 3}" if n % 3 else None


def dialogue(n: int) -> str | None:
    """Of clips without a speaker every other dozen."""
    return f"talk-{split(n)}-{n // 4 % 2}" if not n % 3 and not n // 12 % 2 else None


def streams(n: int) -> list[str]:
    held = {"audio": n % 7 != 3, "video": n % 5 != 2, "text": n % 6 != 5}
    return [name for name, here in held.items() if here]


def sentiment(n: int) -> float | None:
    return None if n % 5 == 4 else round(float(np.sin(2.1 * n + 1)) * 3, 2)


def emotions(n: int) -> tuple[float | None, ...] | None:
    """Of half of the clips, of some of them not all six."""
    if n // 4 % 2:
        return None
    felt = [max(0.0, round(2 * float(np.cos(n + 3 * e)), 2)) for e in range(len(EMOTIONS))]
    return tuple(None if n % 8 in (1, 3) and e == n % 6 else x for e, x in enumerate(felt))


def category(n: int) -> str | None:
    if n % 11 == 0:
        return None
    name = CLASSES[n // 4 % 4]
    return "sad" if name == "fearful" and split(n) == "dev" else name


def in_subset(n: int, subset: str) -> bool:
    """Whether the folder of a stream subset has to hold a clip."""
    return n != BROKEN and bool({*streams(n)} & {*subset.split("+")})


def labels(n: int) -> Labels:
    return Labels(sentiment(n), emotions(n), category(n))


def clip(n: int) -> Example:
    """With what is known of it."""
    lacking = {name: None for name in ("audio", "video", "text") if name not in streams(n)}
    words = {"transcript": WORDS[n // 4 % len(WORDS)] if "text" in streams(n) else None}
    return example(
        n, speaker=speaker(n), dialogue=dialogue(n), split=split(n), labels=labels(n),
        **{**words, **lacking},
    )  # fmt: skip


def write_ragged(folder: Path) -> Path:
    """FOLDER/encoder, FOLDER/prepared and FOLDER/embeddings, one folder for each stream subset."""
    clips = [clip(n) for n in range(CLIPS) if n != BROKEN]
    write_prepared(folder / "prepared", clips, [FAILED], size=16)
    write_encoder(folder / "encoder")
    extract(
        [str(folder / "prepared" / "shards"), "--encoder", str(folder / "encoder"),
         "--out", str(folder / "embeddings"), "--streams", "every",
         "--granularity", "utterance", "frame", "--error-budget", "1"]
    )  # fmt: skip
    return folder
