"""What corpus readers share: finding files by their names, reading tables, saying what is amiss."""

from __future__ import annotations

import csv
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from mmembed.data.example import Utterance
from mmembed.errors import DataError

Found = tuple[Path, re.Match[str]]
"""A file, its path relative to the root, and its name taken apart."""

SOUND: Final = r"\.(?:wav|flac)"
"""End of a pattern: sound as published, or compressed without loss."""

_log: Final = logging.getLogger("mmembed.corpora")


def find_files(root: Path, pattern: str, corpus: str, example: str) -> Iterator[Found]:
    r"""The files below `root` whose name matches, in the order of their paths, as they are found.

    Only names count, and those of folders that the pattern names before them
    (`id\d{5}/[^/]+/\d{5}\.mp4`), whether below or above the root: archives unpack into folders
    of many shapes.

    Raises:
        DataError: no such folder, one that may not be read, or no such file in it.
    """
    if not root.is_dir():
        raise DataError(
            str(root), "missing", f"no such folder; unpack {corpus} and name its folder"
        )
    return _matches(root, re.compile(f"(?:.*/)?(?:{pattern})"), corpus, example)


def _matches(root: Path, pattern: re.Pattern[str], corpus: str, example: str) -> Iterator[Found]:
    above, empty = f"{root.resolve().as_posix()}/", True
    for path in walk(root):
        if match := pattern.fullmatch(above + path):
            empty = False
            yield Path(path), match
    if empty:
        raise DataError(str(root), "empty", f"holds no file of {corpus}, such as {example}")


def walk(root: Path) -> Iterator[str]:
    """All files below a folder, relative to it, sorted as `Path` sorts; memory: one folder's names.

    Links to folders are followed, except into a folder that they lie in.
    """
    return _walk(os.fspath(root), "", ())


def _walk(folder: str, prefix: str, around: tuple[tuple[int, int], ...]) -> Iterator[str]:
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            names = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise DataError(folder, "unreadable", f"cannot be read ({error.strerror})") from None
    here = (status.st_dev, status.st_ino)
    if here in around:
        return
    for name, is_folder in names:
        if is_folder:
            yield from _walk(f"{folder}/{name}", f"{prefix}{name}/", (*around, here))
        else:
            yield prefix + name


def nearest_folder(root: Path, path: Path, pattern: str) -> re.Match[str] | None:
    """The innermost folder around `root / path` whose whole name matches."""
    compiled = re.compile(pattern)
    for folder in (root / path).resolve().parents:
        if match := compiled.fullmatch(folder.name):
            return match
    return None


def best_of(root: Path, candidates: Iterable[tuple[str, int, Utterance]]) -> list[Utterance]:
    """One utterance for each recording, where a corpus has several files of it.

    Args:
        root: of the corpus, for a remark when files stand there twice.
        candidates: (recording, rank, utterance); of a recording the lowest rank is kept, and the
            first of several of that rank.
    """
    kept: dict[str, tuple[int, Utterance]] = {}
    twice = []
    for recording, rank, utterance in candidates:
        known = kept.get(recording)
        if known and known[0] == rank:
            twice.append(utterance.media or utterance.key)
        if not known or rank < known[0]:
            kept[recording] = rank, utterance
    remark(root, twice, "files stand there more than once and are left out")
    return [utterance for _, utterance in kept.values()]


def read_text(path: Path) -> str | None:
    """A small UTF-8 file without white space around, None where there is none or it is empty.

    Raises:
        DataError: it is no UTF-8, or may not be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").strip() or None
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise DataError(str(path), "text", "must be UTF-8 text, this is not") from None
    except OSError as error:
        raise DataError(str(path), "unreadable", f"cannot be read ({error.strerror})") from None


def read_table(path: Path, columns: Sequence[str] = ()) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV or TSV file with a header, each with the number of its (last) line.

    Separated by tabs, semicolons or commas, whichever the header has most of; white space around
    names and values is dropped, and so are empty lines. What a short row lacks is "".

    Args:
        path: of the file.
        columns: names the header must have.

    Raises:
        DataError: a column is missing, a row is longer than the header, or it is no UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.reader(file, delimiter=max("\t;,", key=header.count), strict=True)
            names = [name.strip() for name in next(reader, [])]
            if missing := [name for name in columns if name not in names]:
                raise DataError(
                    str(path),
                    "table",
                    f"lacks the column {', '.join(missing)}; has {', '.join(names) or 'none'}",
                )
            for values in reader:
                if len(values) > len(names):
                    raise DataError(
                        f"{path}:{reader.line_num}",
                        "table",
                        f"{len(values)} values for {len(names)} columns; quote those with commas",
                    )
                if values:
                    values += [""] * (len(names) - len(values))
                    yield reader.line_num, dict(zip(names, map(str.strip, values), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(str(path), "table", f"is no table in UTF-8 ({error})") from None


def remark(root: Path, items: Sequence[str], what: str) -> None:
    """Say on the log that a corpus is not quite as expected; nothing where `items` is empty."""
    if items:
        _log.warning("%s: %s (%d, such as %a)", root, what, len(items), items[0])
