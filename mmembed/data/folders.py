"""Folders that people name: one way to walk them, one list of what counts as media.

Files and folders whose names begin with a dot are passed over, and so is what macOS leaves in
archives ("__MACOSX"). A link to a folder is followed, but every folder is read once: not where the
link leads into the folder that is walked, nor where it leads to what another link has led to.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from mmembed.data.checks import log_skipped
from mmembed.data.manifest.utterance import as_text
from mmembed.errors import DataError

PICTURE_SUFFIXES: Final = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".flv",
    ".3g2", ".3gp", ".asf", ".divx", ".dv", ".f4v", ".m2t", ".m2ts", ".m2v", ".mpv", ".mts", ".mxf",
    ".nut", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".wmv", ".y4m",
)  # fmt: skip
SOUND_SUFFIXES: Final = (
    ".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus",
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".dts", ".eac3",
    ".m4b", ".mka", ".mp2", ".mpga", ".oga", ".sph", ".spx", ".snd", ".tta", ".voc", ".w64",
    ".wave", ".weba", ".wma", ".wv",
)  # fmt: skip
MEDIA_SUFFIXES: Final = PICTURE_SUFFIXES + SOUND_SUFFIXES
"""What files of sound and video are called, in small letters. What is in them is known from their
content; a file that is named by itself may be called anything."""

_RUBBISH: Final = ("__MACOSX",)


@dataclass
class PassedOver:
    """What a walk left out: why, and the names.

    Attributes:
        hidden: files and folders whose names begin with a dot.
        links: to folders that are read under another name.
    """

    hidden: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)


def walk(root: Path | str, passed: PassedOver | None = None) -> Iterator[str]:
    """All files below a folder, relative to it, sorted as `Path` sorts.

    Args:
        root: the folder.
        passed: gets what is left out.

    Raises:
        DataError: a folder cannot be read.
    """
    passed = PassedOver() if passed is None else passed
    top, seen = os.path.realpath(root), set[tuple[int, int]]()

    def below(folder: str, prefix: str) -> Iterator[str]:
        """In memory are the folders seen, and the names of one folder of each depth."""
        try:
            status = os.stat(folder)
            with os.scandir(folder) as entries:
                found = sorted((e.name, _is_folder(e), e.is_symlink()) for e in entries)
        except OSError as error:
            message = f"cannot be read ({error.strerror})"
            raise DataError(folder, "unreadable", message) from None
        here = (status.st_dev, status.st_ino)
        if here in seen:
            passed.links.append(prefix)
            return
        seen.add(here)
        for name, is_folder, is_link in found:
            path = prefix + name
            if name.startswith(".") or name in _RUBBISH:
                passed.hidden.append(path)
            elif not is_folder:
                yield path
            elif is_link and _is_read_elsewhere(f"{folder}/{name}", top):
                passed.links.append(f"{path}/")
            else:
                yield from below(f"{folder}/{name}", f"{path}/")

    return below(os.fspath(root), "")


def _is_read_elsewhere(link: str, top: str) -> bool:
    target = os.path.realpath(link)
    if top == target or top.startswith(target.rstrip("/") + "/"):
        return True  # the folder that is walked lies in it: a circle
    inside = target.removeprefix(top.rstrip("/") + "/")
    return inside != target and not any(x.startswith(".") for x in inside.split("/"))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def is_media(name: str) -> bool:
    """Whether a file is called as media are."""
    return PurePosixPath(name).suffix.lower() in MEDIA_SUFFIXES


def media_below(root: Path, used: str = "") -> list[str]:
    """The media files below a folder, relative to it, sorted; what is passed over is logged.

    Args:
        root: the folder.
        used: a suffix of further files that are not passed over, such as ".txt".
    """
    passed, found, others = PassedOver(), [], list[str]()
    for path in walk(root, passed):
        if is_media(path):
            found.append(path)
        elif not used or PurePosixPath(path).suffix.lower() != used:
            others.append(path)
    log_passed_over(root, others, passed)
    return found


def log_passed_over(root: Path, others: list[str], passed: PassedOver) -> None:
    """Say what of a folder is not used: files by their suffix, what is hidden, linked folders."""
    kinds = Counter(as_text(PurePosixPath(path).suffix) or "without suffix" for path in others)
    for kind, names in (("hidden", passed.hidden), ("linked folders", passed.links)):
        if names:
            kinds[kind] = len(names)
    counted = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    log_skipped(root, [*others, *passed.links, *passed.hidden], f"passed over {counted}")


def files_below(root: Path, *suffixes: str) -> list[Path]:
    """The files below a folder, itself among their names, that have one of the suffixes in letters
    of any size; sorted as `walk` sorts.
    """
    return [root / path for path in walk(root) if PurePosixPath(path).suffix.lower() in suffixes]
