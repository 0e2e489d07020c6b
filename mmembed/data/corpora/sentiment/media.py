"""Folders of videos with a label file beside them.

Clips are found by their names, wherever they lie: `VIDEO/CLIP.mp4` (MMSA's `Raw`, clip numbers with
or without leading zeros), `VIDEO_CLIP.mp4` (CMU's `Videos/Segmented/Combined`, MOSI's
`Video/Segmented`, also as audio in `Audio`), and whole videos `VIDEO.mp4` (`Videos/Full/Combined`),
from which the times of the label file cut the segments.

CMU's archives write the words in `Transcript/Segmented`: lines `VIDEO___CLIP___START___END___TEXT`
for CMU-MOSEI, a file `VIDEO.annotprocessed` of lines `CLIP_DELIM_TEXT` for CMU-MOSI. Their times
also show which clip number a segment of the SDK's labels has. Layout after public programs that
read the archives; not checked against the originals.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from mmembed.data.checks import Check, none_of
from mmembed.data.corpora.sentiment.corpus import Segment
from mmembed.data.folders import MEDIA_SUFFIXES, files_below
from mmembed.errors import DataError

SAME_TIME: Final = 0.05  # seconds that the times of one segment may differ between releases

TIME: Final = r"-?\d+(?:\.\d+)?"
LINE: Final = re.compile(
    rf"(?P<video>.+?)___(?P<clip>\d+)___(?P<start>{TIME})___(?P<end>{TIME})___(?P<text>.*)"
)


class Words(NamedTuple):
    """What is said in a clip, and when, if that is known."""

    clip: str
    text: str
    start: float | None = None
    end: float | None = None


def media_below(root: Path) -> list[Path]:
    """All media files below a folder, video before audio, then by path."""
    rank = {suffix: number for number, suffix in enumerate(MEDIA_SUFFIXES)}
    found = files_below(root, *MEDIA_SUFFIXES)
    return sorted(found, key=lambda path: rank[path.suffix.lower()])


def with_media(
    root: Path, paths: Sequence[Path], segments: Sequence[Segment]
) -> tuple[list[Segment], list[Check]]:
    """Segments with their files and words; those without a file are left out.

    Args:
        root: where transcripts are looked for.
        paths: of all media files, see `media_below`.
        segments: of the label file.

    Raises:
        DataError: not one segment has a file.
    """
    by_stem: dict[str, Path] = {}
    by_folder: dict[tuple[str, str], Path] = {}
    for file in reversed(paths):  # the first of a name wins
        by_stem[file.stem] = file
        by_folder[file.parent.name, _number(file.stem)] = file
    words = _transcripts(root)
    found: list[Segment] = []
    used: set[Path] = set()
    guessed = 0
    for segment in segments:
        of_video = words.get(segment.video, ())
        spoken = _spoken(segment, of_video)
        timed = segment.end is not None
        path = by_stem.get(segment.video) if timed else None
        whole = path is not None
        if path is None and not (timed and spoken is None and any(w.end for w in of_video)):
            clip = _number(spoken.clip if spoken else segment.clip)
            path = by_folder.get((segment.video, clip)) or by_stem.get(f"{segment.video}_{clip}")
            guessed += path is not None and timed and spoken is None
        if path is None:
            continue
        used.add(path)
        found.append(
            replace(
                segment,
                media=str(path.absolute()),
                start=segment.start if whole else None,
                end=segment.end if whole else None,
                transcript=segment.transcript or (spoken.text if spoken else None),
            )
        )
    if not found:
        raise DataError(
            str(root),
            "media",
            f"not one of {len(segments)} segments has a file, such as "
            f"{segments[0].video}/{segments[0].clip}.mp4 or {segments[0].video}.mp4",
        )
    kept = {segment.name for segment in found}
    stems = {path.stem if path in used else None for path in paths}
    unused = [str(p.relative_to(root)) for p in paths if p not in used and p.stem not in stems]
    checks = [
        none_of("ids without media", [s.name for s in segments if s.name not in kept], "left out"),
        none_of("media without ids", unused, "not used"),
        Check("without transcript", str(sum(s.transcript is None for s in found))),
    ]
    if guessed:
        note = "labels with times, but no transcript has the clip numbers of these times"
        checks.append(Check("clips matched by number", f"{guessed}: {note}", "0", False))
    return found, checks


def _number(clip: str) -> str:
    return clip.lstrip("0") or "0" if clip.isdigit() else clip


def _spoken(segment: Segment, words: Sequence[Words]) -> Words | None:
    """By time where both have one, else by number."""
    for one in words:
        if one.start is None or one.end is None or segment.start is None or segment.end is None:
            if _number(one.clip) == _number(segment.clip):
                return one
        elif max(abs(one.start - segment.start), abs(one.end - segment.end)) < SAME_TIME:
            return one
    return None


def _transcripts(root: Path) -> Mapping[str, Sequence[Words]]:
    words: dict[str, list[Words]] = defaultdict(list)
    for path in files_below(root, ".txt", ".annotprocessed"):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if path.suffix != ".txt":
                if match := re.match(r"(\d+)_(?:DELIM_)?", line):
                    words[path.stem].append(Words(match[1], line[match.end() :].strip()))
            elif match := LINE.match(line):
                times = float(match["start"]), float(match["end"])
                words[match["video"]].append(Words(match["clip"], match["text"].strip(), *times))
    return words
