"""What corpus readers share: finding files by their names, choosing among them, small texts."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.checks import log_skipped
from mmembed.data.folders import PassedOver, is_media, log_passed_over, walk
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

Found = tuple[Path, re.Match[str]]
"""The path of a file relative to the root, and the match of its name."""

SOUND: Final = r"\.(?i:wav|flac)"
"""End of a pattern: audio as published, or compressed without loss, in upper or lower case."""

SPLIT_NAMES: Final = {
    "train": "train", "heldout": "heldout", "test": "test",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev",
}  # fmt: skip
"""What users call splits, and ours."""


def find_files(
    root: Path, pattern: str, corpus: str, example: str, *, log_others: bool = False
) -> Iterator[Found]:
    r"""The files below `root` whose name matches, in the order of their paths, as they are found.

    Only names count, and those of folders that the pattern names before them
    (`id\d{5}/[^/]+/\d{5}\.mp4`), whether below or above the root: archives unpack into folders
    of many shapes. See `mmembed.data.folders` for what a walk skips.

    Args:
        root: a folder.
        pattern: of whole names.
        corpus: its name, for errors.
        example: a path that matches, for errors.
        log_others: whether to log the media files that do not match.

    Raises:
        DataError: no such folder, one that may not be read, or no such file in it.
    """
    if not root.is_dir():
        message = f"no such folder; unpack {corpus} and name its folder"
        raise DataError(str(root), "missing", message)
    compiled = re.compile(f"(?:.*/)?(?:{pattern})", re.DOTALL)
    above, empty = f"{root.resolve().as_posix()}/", True
    passed, others = PassedOver(), list[str]()
    for path in walk(root, passed):
        if match := compiled.fullmatch(above + path):
            empty = False
            yield Path(path), match
        elif log_others and is_media(path):
            others.append(path)
    if log_others:
        hidden = PassedOver([path for path in passed.hidden if is_media(path)], passed.links)
        log_passed_over(root, others, hidden)
    if empty:
        raise DataError(str(root), "empty", f"holds no file of {corpus}, such as {example}")


def find_media(root: Path, pattern: str, corpus: str, example: str) -> Iterator[Found]:
    """`find_files` for media: logs media files that do not match."""
    return find_files(root, pattern, corpus, example, log_others=True)


def nearest_folder(root: Path, path: Path, pattern: str) -> re.Match[str] | None:
    """The innermost folder around `root / path` whose whole name matches."""
    compiled = re.compile(pattern)
    for folder in (root / path).resolve().parents:
        if match := compiled.fullmatch(folder.name):
            return match
    return None


def best_of(
    root: Path,
    rows: Iterable[Utterance],
    rank: Callable[[Utterance], int],
    recording: Callable[[Utterance], str] = attrgetter("key"),
) -> list[Utterance]:
    """One utterance for each recording, where a corpus has several files of it.

    Args:
        root: of the corpus, for the log.
        rows: an utterance for each file.
        rank: of the rows of a recording the lowest rank is kept, and the first of that rank.
        recording: what the row is a recording of.
    """
    kept: dict[str, Utterance] = {}
    twice, others = [], []
    for row in rows:
        known = kept.setdefault(recording(row), row)
        if known is row:
            continue
        if rank(row) == rank(known):
            twice.append(row.media or row.key)
        else:
            worse, better = sorted((known, row), key=rank, reverse=True)
            others.append(worse.media or worse.key)
            kept[recording(row)] = better
    log_skipped(root, twice, "files occur more than once and are left out")
    log_skipped(
        root, others, "files are of recordings that exist in a better form and are left out"
    )
    return list(kept.values())


def read_text(path: Path) -> str | None:
    """A small UTF-8 file without white space around, None where there is none or it is empty.

    Raises:
        DataError: it is no UTF-8, or may not be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig").strip()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise DataError(str(path), "text", "must be UTF-8 text, this is not") from None
    except OSError as error:
        raise DataError(str(path), "unreadable", f"cannot be read ({error.strerror})") from None
    if "\0" in text:
        raise DataError(str(path), "text", "must be UTF-8 text, this holds a NUL")
    return text or None


def read_arrays(path: Path, *names: str) -> list[NDArray[Any]]:
    """Arrays of an .npz file.

    Raises:
        DataError: no such file, or it lacks one of them.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return [file[name] for name in names]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        needed = f"needs an .npz with {' and '.join(names)} ({error})"
        raise DataError(str(path), "features", needed) from None
