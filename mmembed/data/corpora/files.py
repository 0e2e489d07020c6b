"""Finding the files of a corpus by their names."""

from __future__ import annotations

import re
from pathlib import Path

from mmembed.errors import DataError

Found = tuple[Path, re.Match[str]]
"""A file, its path relative to the root, and its name taken apart."""

SOUND = r"\.(?:wav|flac)"
"""End of a pattern: sound as published, or compressed without loss."""


def find_files(root: Path, pattern: str, corpus: str, example: str) -> list[Found]:
    """The files below `root` whose whole name matches, sorted by path.

    Only names count: archives unpack into folders of many shapes.

    Raises:
        DataError: no such folder, or no such file in it.
    """
    if not root.is_dir():
        raise DataError(
            str(root), "missing", f"no such folder; unpack {corpus} and name its folder"
        )
    compiled = re.compile(pattern)
    found = [
        (path.relative_to(root), match)
        for path in sorted(root.rglob("*"))
        if (match := compiled.fullmatch(path.name))
    ]
    if not found:
        raise DataError(str(root), "empty", f"holds no file of {corpus}, such as {example}")
    return found


def nearest_folder(root: Path, path: Path, pattern: str) -> re.Match[str] | None:
    """The innermost folder around `root / path` whose whole name matches."""
    compiled = re.compile(pattern)
    for folder in (root / path).resolve().parents:
        if match := compiled.fullmatch(folder.name):
            return match
    return None
