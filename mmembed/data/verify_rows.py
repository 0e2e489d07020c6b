"""Whether the rows of a manifest can be used, before hours are spent on preparing them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeAlias

from mmembed.data.example import Utterance
from mmembed.data.examples import load_example
from mmembed.data.features import SUFFIX, read_features
from mmembed.data.manifest import from_row, read_manifest
from mmembed.data.media import LONGEST, media_kind
from mmembed.data.places import Place, Progress
from mmembed.data.verify import Defect, Verdict, not_finite, portable
from mmembed.errors import CorruptError, DataError
from mmembed.features.text import normalise_transcript

_REMOTE: Final = "://"

Row: TypeAlias = tuple[str, Utterance]  # where it stands, what it says


def verify_manifest(
    place: Place, *, decode: bool, on_progress: Progress = lambda done, of: None
) -> Verdict:
    """Check every row of a manifest and the media it names.

    Args:
        place: the manifest.
        decode: also decode every clip; else its first bytes are looked at.
        on_progress: called with the rows done so far and their total.
    """
    verdict = Verdict(place)
    rows = _rows(place.path, verdict)
    verdict.records = len(rows)
    lines: dict[str, str] = {}
    looked_at: set[Path] = set()
    for done, (where, row) in enumerate(rows, start=1):
        if row.key in lines:
            verdict.add(Defect(where, "duplicate", f"key {row.key} stands in {lines[row.key]} too"))
        lines.setdefault(row.key, where)
        verdict.add(*portable(row.key), *_times(where, row))
        verdict.add(*_media(where, row, place.path.parent, verdict, looked_at, decode))
        on_progress(done, len(rows))
    return verdict


def _rows(path: Path, verdict: Verdict) -> list[Row]:
    """The rows that can be read; the others are defects."""
    if path.suffix != ".jsonl":
        try:
            return [(row.key, row) for row in read_manifest(path)]
        except DataError as error:
            verdict.add(_defect(error))
            return []
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            try:
                rows.append((f"{path}:{number}", from_row(json.loads(line))))
            except (ValueError, RecursionError) as error:
                verdict.add(Defect(f"{path}:{number}", "manifest", str(error)))
    if not rows and not verdict.counts:
        verdict.add(Defect(str(path), "empty", "holds no utterance"))
    return rows


def _times(where: str, row: Utterance) -> Iterator[Defect]:
    if not math.isfinite(row.start) or (row.end is not None and not math.isfinite(row.end)):
        yield Defect(where, "times", f"{row.key} goes from {row.start} s to {row.end} s")
    elif row.end is not None and row.end - row.start > LONGEST:
        seconds = f"{row.key} is {row.end - row.start:.1f} s long"
        yield Defect(where, "too_long", f"{seconds}; up to {LONGEST:.0f} s are allowed, cut it")


def _media(
    where: str, row: Utterance, folder: Path, verdict: Verdict, looked_at: set[Path], decode: bool
) -> Iterator[Defect]:
    try:
        if row.media is None:
            if not normalise_transcript(row.transcript or ""):
                yield Defect(where, "no_streams", f"{row.key} has neither media nor words")
        elif _REMOTE in row.media:
            verdict.unchecked += 1
        elif SUFFIX + "#" in row.media:
            file, _, number = row.media.rpartition("#")
            if not number.isdecimal():
                yield Defect(where, "media", f"{row.media}: a row number has to follow the #")
                return
            for stream, values in read_features(folder / file, int(number)).items():
                yield from not_finite(where, stream, values)
        elif decode:
            load_example(row, folder)
        elif "#" in row.media and not (folder / row.media).exists():
            verdict.unchecked += 1  # a member of an archive
            yield from _container(where, folder / row.media.rpartition("#")[0], looked_at)
        elif (path := folder / row.media) not in looked_at:  # a defect of a file is told once
            looked_at.add(path)
            media_kind(path)
    except (DataError, CorruptError) as error:
        yield _defect(error, where)


def _container(where: str, archive: Path, looked_at: set[Path]) -> Iterator[Defect]:
    if archive not in looked_at and not archive.is_file():
        yield Defect(where, "missing", f"{archive}: no such archive")
    looked_at.add(archive)


def _defect(error: DataError | CorruptError, where: str = "") -> Defect:
    if isinstance(error, CorruptError):
        return Defect(where, "damaged", str(error), error.exit_code)
    if where:
        return Defect(where, error.reason, str(error))
    return Defect(error.item, error.reason, str(error).removeprefix(f"{error.item}: "))
