"""Whether the rows of a manifest can be used, before hours are spent on preparing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.locations import Location, Progress
from mmembed.data.manifest.jsonl import iterate_rows
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import LONGEST
from mmembed.data.media.open import media_kind
from mmembed.data.media.pool import Decoder, Task
from mmembed.data.verify.defect import Defect
from mmembed.data.verify.shards import Verdict, not_finite, portable
from mmembed.errors import CorruptError, DataError
from mmembed.features.text import normalise_transcript

_REMOTE: Final = "://"

Row: TypeAlias = tuple[str, Utterance]  # where it stands, what it says


def verify_manifest(
    place: Location, *, decode: bool, on_progress: Progress = lambda done, of: None
) -> Verdict:
    """Check every row of a manifest and the media it names.

    Args:
        place: the manifest.
        decode: also decode every clip; else its first bytes are looked at.
        on_progress: called with the rows done so far and their total.
    """
    verdict = Verdict(place)
    rows, folder = _rows(place.path, verdict), place.path.parent
    total = len(rows) * (2 if decode else 1)
    verdict.records = len(rows)
    lines: dict[str, str] = {}
    files: dict[Path, bool] = {}  # whether they can be used; a defect of a file is told once
    usable: list[Row] = []
    for done, (where, row) in enumerate(rows, start=1):
        if row.key in lines:
            verdict.add(Defect(where, "duplicate", f"key {row.key} stands in {lines[row.key]} too"))
        lines.setdefault(row.key, where)
        verdict.add(*portable(row.key), *_times(where, row))
        verdict.add(*_media(where, row, folder, verdict, files))
        if row.media is not None and files.get(folder / row.media):
            usable.append((where, row))
        on_progress(done, total)
    if decode:
        for done, defects in enumerate(_decode(usable, folder), start=len(rows) + 1):
            verdict.add(*defects)
            on_progress(done, total)
        on_progress(total, total)
    return verdict


def _rows(path: Path, verdict: Verdict) -> list[Row]:
    """The rows that can be read; the others are defects."""
    rows: list[Row] = []
    try:
        for where, row in iterate_rows(path):
            if isinstance(row, DataError):
                verdict.add(_defect(row))
            else:
                rows.append((where, row))
    except DataError as error:
        verdict.add(_defect(error))
    if not rows and not verdict.counts:
        verdict.add(Defect(str(path), "empty", "holds no utterance"))
    return rows


def _times(where: str, row: Utterance) -> Iterator[Defect]:
    if row.end is not None and row.end - row.start > LONGEST:
        seconds = f"{row.key} is {row.end - row.start:.1f} s long"
        yield Defect(where, "too_long", f"{seconds}; up to {LONGEST:.0f} s are allowed, cut it")


def _media(
    where: str, row: Utterance, folder: Path, verdict: Verdict, files: dict[Path, bool]
) -> Iterator[Defect]:
    """What can be told of a row's media without decoding them."""
    if row.media is None:
        if not normalise_transcript(row.transcript or ""):
            yield Defect(where, "no_streams", f"{row.key} has neither media nor words")
        return
    path, (file, _, member) = folder / row.media, row.media.rpartition("#")
    try:
        if _REMOTE in row.media:
            verdict.unchecked += 1
        elif SUFFIX + "#" in row.media:
            if not member.isdecimal():
                raise DataError(row.media, "media", "a row number has to follow the #")
            for stream, values in read_features(folder / file, int(member)).items():
                yield from not_finite(where, stream, values)
        elif file and not path.exists():  # a member of an archive
            verdict.unchecked += 1
            archive = folder / file
            if archive not in files:
                files[archive] = archive.is_file()
                if not files[archive]:
                    raise DataError(str(archive), "missing", "no such archive")
        elif path not in files:
            files[path] = False
            media_kind(path)
            files[path] = True
    except (DataError, CorruptError) as error:
        yield _defect(error, where)
    except OSError as error:  # a name that no file can have
        yield Defect(where, "unreadable", f"{row.media[:80]} cannot be opened ({error.strerror})")


def _decode(rows: Sequence[Row], folder: Path) -> Iterator[list[Defect]]:
    """The defects of each row, in order; damaged media take down a child process at most."""
    with Decoder() as decoder:
        outcomes = decoder.load(Task(row, folder) for _, row in rows)
        for (where, _), outcome in zip(rows, outcomes, strict=True):
            yield [_defect(outcome, where)] if isinstance(outcome, DataError) else []


def _defect(error: DataError | CorruptError, where: str = "") -> Defect:
    if isinstance(error, CorruptError):
        return Defect(where, "damaged", str(error), error.exit_code)
    if where:
        return Defect(where, error.reason, str(error))
    return Defect(error.item, error.reason, str(error).removeprefix(f"{error.item}: "))
