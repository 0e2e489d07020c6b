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


_OTHER_KINDS: Final = {
    b"PK\x03\x04": "an Excel file or an archive; save the table as CSV in UTF-8",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save the table as CSV in UTF-8",
    b"PAR1": "a Parquet table; `mmembed prepare manifest` reads those",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}


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
    """A small UTF-8 file without white space around, None where it is missing or empty.

    Raises:
        DataError: as for `decode_text`.
    """
    try:
        return decode_text(path).strip() or None
    except DataError as error:
        if error.reason == "missing":
            return None
        raise


def decode_text(path: Path, *, fix_encoding: bool = False) -> str:
    """A text file in UTF-8, with or without a byte order mark; its lines end in a newline.

    Args:
        path: of the file.
        fix_encoding: read what is not UTF-8 as Windows-1252, and apply `fix_latin1`.

    Raises:
        DataError: there is no such file, or it is not text in UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such file") from None
    except OSError as error:
        raise DataError(str(path), "unreadable", f"cannot be read ({error.strerror})") from None
    for mark, what in _OTHER_KINDS.items():
        if data.startswith(mark):
            raise DataError(str(path), "text", f"is {what}")
    if b"\0" in data:
        line = data[: data.index(b"\0")].count(b"\n") + 1
        message = "holds a NUL: no text, or UTF-16; save it as UTF-8"
        raise DataError(f"{path}:{line}", "text", message)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not fix_encoding:
            line = data[: error.start].count(b"\n") + 1
            byte = f"byte {data[error.start]:#04x}"
            message = f"is not text in UTF-8 ({byte}); save it as UTF-8"
            raise DataError(f"{path}:{line}", "text", message) from None
        text = data.decode("cp1252", errors="replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return fix_latin1(text) if fix_encoding else text


def fix_latin1(text: str) -> str:
    """Windows-1252 that was read as Latin-1: its U+0080 to U+009F become what they stand for.

    0x92, for example, is an apostrophe.
    """
    return re.sub(
        "[\x80-\x9f]", lambda c: c[0].encode("latin-1").decode("cp1252", errors="ignore"), text
    )


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
