"""Whether the rows of a manifest can be used, before hours are spent on preparing them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mmembed.data.example import LONGEST
from mmembed.data.feature_files import SUFFIX, read_features
from mmembed.data.locations import Location, Progress
from mmembed.data.manifest.jsonl import iterate_rows
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.load import MediaSource
from mmembed.data.media.open import media_kind
from mmembed.data.media.pool import Decoder
from mmembed.data.verify.defect import Defect, VerifyResult, check_finite, check_key, defect_of
from mmembed.errors import CorruptError, DataError
from mmembed.features.text import normalise_transcript


def verify_manifest(
    location: Location, *, decode: bool, on_progress: Progress = lambda done, of: None
) -> VerifyResult:
    """Check every row of a manifest and the media it names.

    Args:
        location: the manifest.
        decode: also decode every clip; else its first bytes are looked at.
        on_progress: called with the rows done so far and their total.
    """
    result = VerifyResult(location)
    rows, folder = _rows(location.path, result), location.path.parent
    total = len(rows) * (2 if decode else 1)
    result.records = len(rows)
    lines: dict[str, str] = {}
    files: dict[Path, bool] = {}  # whether they can be used; a defect of a file is named once
    usable: list[tuple[str, Utterance]] = []
    for done, (where, row) in enumerate(rows, start=1):
        if row.key in lines:
            message = f"key {row.key} stands in {lines[row.key]} too"
            result.add([Defect(where, "duplicate", message)])
        lines.setdefault(row.key, where)
        result.add(check_key(row.key))
        if row.end is not None and row.end - row.start > LONGEST:
            seconds = f"{row.key} is {row.end - row.start:.1f} s long"
            message = f"{seconds}; up to {LONGEST:.0f} s are allowed, cut it"
            result.add([Defect(where, "too_long", message)])
        result.add(_media(where, row, folder, result, files))
        if row.media is not None and files.get(folder / row.media):
            usable.append((where, row))
        on_progress(done, total)
    if decode:
        with Decoder() as decoder:  # damaged media take down a child process at most
            outcomes = decoder.load(MediaSource(row, folder) for _, row in usable)
            pairs = zip(usable, outcomes, strict=True)
            for done, ((where, _), outcome) in enumerate(pairs, start=len(rows) + 1):
                if isinstance(outcome, DataError):
                    result.add([defect_of(outcome, where)])
                on_progress(done, total)
        on_progress(total, total)
    return result


def _rows(path: Path, result: VerifyResult) -> list[tuple[str, Utterance]]:
    """Where each row that can be read stands, and the row; the others are defects."""
    rows = []
    try:
        for where, row in iterate_rows(path):
            if isinstance(row, DataError):
                result.add([defect_of(row)])
            else:
                rows.append((where, row))
    except DataError as error:
        result.add([defect_of(error)])
    if not rows and not result.counts:
        result.add([Defect(str(path), "empty", "holds no utterance")])
    return rows


def _media(
    where: str, row: Utterance, folder: Path, result: VerifyResult, files: dict[Path, bool]
) -> Iterator[Defect]:
    """What is wrong with a row's media, as far as it shows without decoding them."""
    if row.media is None:
        if not normalise_transcript(row.transcript or ""):
            yield Defect(where, "no_streams", f"{row.key} has neither media nor words")
        return
    path, (file, _, member) = folder / row.media, row.media.rpartition("#")
    try:
        if "://" in row.media:
            result.unchecked += 1
        elif SUFFIX + "#" in row.media:
            if not member.isdecimal():
                raise DataError(row.media, "media", "a row number has to follow the #")
            for stream, values in read_features(folder / file, int(member)).items():
                yield from check_finite(where, stream, values)
        elif file and not path.exists():  # a member of an archive
            result.unchecked += 1
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
        yield defect_of(error, where)
    except OSError as error:  # a name that no file can have
        yield Defect(where, "unreadable", f"{row.media[:80]} cannot be opened ({error.strerror})")
