"""Whether a folder of shards is whole and holds what it says: every byte, every record.

A shard is compared with its index, each record with what the index says of it, all shards with
`manifest.json` and with the manifest they were made of. Defects are listed, never raised: one must
not hide another.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmembed.data.locations import (
    MADE,
    Entry,
    Index,
    Json,
    Location,
    Progress,
    read_index,
    read_member,
)
from mmembed.data.manifest.jsonl import read_each_row, row_name
from mmembed.data.shards.layout import shard_path
from mmembed.data.shards.records import FEATURES, from_record, to_record
from mmembed.data.verify.defect import Defect, corrupt
from mmembed.data.verify.embeddings import (
    check_copies,
    check_embedding,
    check_origin,
    index_of,
    is_embedding,
    outliers,
)
from mmembed.errors import CorruptError, DataError, MmembedError
from mmembed.features.audio import MEL_BANDS
from mmembed.features.video import CROP

SHOWN: Final = 20  # defects of a folder that are kept one by one; the others are counted
MOST_MISSING: Final = 10_000  # shards that are listed as missing
PORTABLE: Final = re.compile(r"[A-Za-z0-9_%-]+")

FAILED: Final = "failed.jsonl"

Shape: TypeAlias = tuple[int | None, ...]
Widths: TypeAlias = dict[str, tuple[int, str]]  # member -> its width, and the key it was met in
_FORMS: Final[dict[str, tuple[tuple[str, ...], tuple[Shape, ...]]]] = {
    "audio": (("float16",), ((None, MEL_BANDS),)),
    "video": (("uint8",), ((None, CROP, CROP),)),
    "pooled": (("float16", "float32"), ((None,),)),
    "frames": (("float16", "float32"), ((None, None),)),
    "words": (("float16", "float32"), ((None, None),)),
    "layers": (("float16", "float32"), ((None, None), (None, None, None))),
}
"""Member -> dtypes and shapes allowed, None = any size; see docs/architecture.md."""
_FEATURES: Final = (("float32",), ((None, None),))


@dataclass
class Verdict:
    """What became of one place.

    Attributes:
        place: what was verified.
        records: how many records or rows it holds.
        failures: items that were left out when it was made, each with a reason.
        parts: shards.
        size: bytes of its shards.
        unchecked: media that could not be looked at from here, such as URLs.
        defects: the first `SHOWN`.
        counts: (reason, exit code) -> how many, of all defects.
    """

    place: Location
    records: int = 0
    failures: int = 0
    parts: int = 0
    size: int = 0
    unchecked: int = 0
    defects: list[Defect] = field(default_factory=list)
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)

    def add(self, *defects: Defect) -> None:
        for defect in defects:
            self.counts[defect.reason, defect.exit_code] += 1
            if len(self.defects) < SHOWN:
                self.defects.append(defect)

    @property
    def exit_code(self) -> int:
        """The gravest of the defects: 5, 4 or 0."""
        return max((code for _, code in self.counts), default=0)

    @property
    def harmful(self) -> int:
        """How many defects there are that somebody has to mend."""
        return sum(count for (_, code), count in self.counts.items() if code)


Known: TypeAlias = dict[str, dict[str, str]]
"""Kind of shards -> key -> where it was first seen. One for all folders that are to go together."""


def verify_shards(
    place: Location, known: Known, on_progress: Progress = lambda done, of: None
) -> Verdict:
    """Check a folder of shards.

    Args:
        place: the folder.
        known: keys seen in other folders; this folder's are added.
        on_progress: called with the bytes done so far and their total.
    """
    verdict = Verdict(place)
    verdict.add(*_leftovers(place.path))
    verdict.add(*check_copies(place.path))
    made = place.made
    # The same clips embedded from other streams have the same keys, and shall.
    encoder = made.get("encoder_sha256")
    kind = f"{encoder} {made.get('streams')}" if encoder else "features"
    keys = known.setdefault(kind, {})
    widths: Widths = {}
    norms: dict[str, float] = {}
    accounted: set[str] = set()
    numbers, unread = set(), False
    total = sum(path.stat().st_size for path in place.path.glob("shard-*.tar"))
    for sidecar in place.sidecars:
        numbers.add(sidecar.stem)
        verdict.parts += 1
        try:
            index = read_index(sidecar)
        except CorruptError as error:
            remedy = "delete it and its .tar, and make the shards again"
            verdict.add(corrupt(sidecar, "index", f"{error}; {remedy}"))
            unread = True
            continue
        accounted |= {entry.key for entry in index.entries}
        accounted |= {str(one.get("key")) for one in index.failed}
        verdict.records += len(index.entries)
        verdict.failures += len(index.failed)
        verdict.size += index.size
        verdict.add(*check_origin(index, made))
        for defect in _shard(index, keys, widths, norms, made):
            verdict.add(defect)
        on_progress(verdict.size, total)
    verdict.add(*outliers(norms))
    verdict.add(*_shards(place.path, numbers, made))
    if not unread:  # else nobody knows what is lost
        verdict.add(*_totals(verdict, made))
        if place.rows is not None:
            verdict.add(*_rows(place.rows, accounted))
    return verdict


def portable(key: str) -> list[Defect]:
    """A defect if a key holds anything but ASCII letters, digits, - _ and %."""
    if PORTABLE.fullmatch(key):
        return []
    message = "key is not portable; letters, digits, - and _ are allowed, the rest as %XX"
    return [Defect(key, "key", message)]


def not_finite(item: str, name: str, array: NDArray[Any]) -> list[Defect]:
    """A defect if an array holds NaN or infinity."""
    bad = array.size - int(np.isfinite(array).sum()) if array.dtype.kind == "f" else 0
    message = f"{name} holds {bad} of {array.size} values that are not finite"
    return [Defect(item, "not_finite", message)] if bad else []


def _leftovers(folder: Path) -> Iterator[Defect]:
    """Harmless: readers do not see them, and the next run sweeps them."""
    note = "left by a writer that was killed or is still at work; the same command again goes on"
    for path in sorted(folder.glob(".*.tmp")):
        yield Defect(str(path), "leftover", note, exit_code=0)
    for path in sorted(folder.glob("shard-*.tar")):
        if not path.with_suffix(".json").exists():
            yield Defect(str(path), "no_index", note, exit_code=0)


def _shard(
    index: Index, keys: dict[str, str], widths: Widths, norms: dict[str, float], made: Json
) -> Iterator[Defect]:
    tar = index.tar
    if not tar.is_file():
        again = f"delete {tar.stem}.json and make it again"
        yield corrupt(tar, "missing", f"only its index is there; {again}")
        return
    remedy = "delete it and its .json and make it again"
    with tar.open("rb") as file:
        if (size := tar.stat().st_size) != index.size:
            yield corrupt(tar, "size", f"{size} bytes, {index.size} were written; {remedy}")
        elif hashlib.file_digest(file, "sha256").hexdigest() != index.sha256:
            yield corrupt(tar, "checksum", f"its SHA-256 differs; {remedy}")
        else:
            yield from _tar_members(index)
        for entry in index.entries:
            yield from portable(entry.key)
            if entry.key in keys:
                yield Defect(entry.key, "duplicate", f"stands in {keys[entry.key]} and in {tar}")
            keys.setdefault(entry.key, str(tar))
            yield from _record(file, entry, widths, norms, made)


def _tar_members(index: Index) -> Iterator[Defect]:
    """The tar must hold what the index lists, no more and no less, at the same places."""
    listed = {
        f"{entry.key}.{name}": place[:2]
        for entry in index.entries
        for name, place in entry.members.items()
    }
    try:
        with tarfile.open(index.tar, "r:") as tar:
            held = {member.name: (member.offset_data, member.size) for member in tar}
    except tarfile.TarError as error:
        yield corrupt(index.tar, "differs", f"not a tar ({error}), as its index has it")
        return
    if different := sorted(name for name in {*held, *listed} if held.get(name) != listed.get(name)):
        others = f" and {len(different) - 1} others" if different[1:] else ""
        yield corrupt(index.tar, "differs", f"its index differs from it in {different[0]}{others}")


def _record(
    tar: BinaryIO, entry: Entry, widths: Widths, norms: dict[str, float], made: Json
) -> Iterator[Defect]:
    members: dict[str, Any] = {}
    for name, place in entry.members.items():
        try:
            members[name] = read_member(tar, name, place)
        except ValueError as error:
            yield corrupt(entry.key, "damaged", f"{name} in {tar.name}: {error}")
    for name, value in members.items():
        if isinstance(value, np.ndarray):
            yield from _array(entry.key, name.removesuffix(".npy"), value, widths)
    if len(members) == len(entry.members):
        yield from _index_of(entry, members)
    if is_embedding(members):
        yield from check_embedding(entry.key, members, made)
    if isinstance(pooled := members.get("pooled.npy"), np.ndarray):
        norms[entry.key] = float(np.linalg.norm(pooled.astype(np.float64)))


def _array(key: str, name: str, array: NDArray[Any], widths: Widths) -> Iterator[Defect]:
    """Of the documented dtype and shape, as wide as in the other records, finite."""
    dtypes, shapes = _FEATURES if name.startswith(FEATURES) else _FORMS.get(name, ((), ()))
    if dtypes and (
        array.dtype.name not in dtypes or not any(_fits(array.shape, shape) for shape in shapes)
    ):
        allowed = " or ".join(f"({', '.join(map(_size, shape))})" for shape in shapes)
        found = f"{name} is {array.dtype} {array.shape}"
        yield Defect(key, "form", f"{found}; {' or '.join(dtypes)} {allowed} is expected")
    elif array.ndim:
        width, first = widths.setdefault(name, (array.shape[-1], key))
        if array.shape[-1] != width:
            found = f"{name} has the width {array.shape[-1]}, in {first} {width}"
            yield Defect(key, "width", f"{found}; all records of a folder have the same")
    yield from not_finite(key, name, array)


def _fits(shape: tuple[int, ...], allowed: Shape) -> bool:
    return len(shape) == len(allowed) and all(
        size in (found, None) for found, size in zip(shape, allowed, strict=True)
    )


def _size(size: int | None) -> str:
    return "any" if size is None else str(size)


def _index_of(entry: Entry, members: Json) -> Iterator[Defect]:
    """What the index says of a record must be what the record says."""
    try:
        if is_embedding(members):
            expected = index_of(members)
        else:
            example = from_record(entry.key, members)
            key, _, meta = to_record(example)
            expected = dict(meta)
            if key != entry.key:
                yield Defect(entry.key, "record", f"its utterance has the key {key}")
            if not example.streams:
                yield Defect(entry.key, "no_streams", "has neither sound, picture nor words")
    except (MmembedError, ValueError, TypeError, KeyError, AttributeError) as error:
        yield Defect(entry.key, "record", f"is neither prepared features nor embeddings: {error}")
        return
    for name, value in expected.items():
        if name in entry.meta and entry.meta[name] != value:
            found = f"{name} is {entry.meta[name]!r} in the index, {value!r} in the record"
            yield Defect(entry.key, "meta", found)


def _shards(folder: Path, names: Collection[str], made: Json) -> Iterator[Defect]:
    """All shards that `manifest.json` promises must be there."""
    if not made:
        note = "missing or damaged: the run did not end; the same command again goes on"
        yield Defect(str(folder / MADE), "unfinished", note)
    total, size = _inputs(made), made.get("records_per_shard")
    if total is not None and isinstance(size, int) and size > 0:
        planned = (shard_path(folder, number) for number in range(-(-total // size)))
        missing = (path for path in planned if path.stem not in names)
        for path in islice(missing, MOST_MISSING):
            yield corrupt(path, "missing", "not there; the same command again makes it")
        if next(missing, None) is not None:  # a number of clips may be anything
            yield corrupt(folder, "missing", f"more than {MOST_MISSING} shards are not there")


def _inputs(made: Json) -> int | None:
    total = made.get("utterances", made.get("clips"))
    return total if isinstance(total, int) else None


def _totals(verdict: Verdict, made: Json) -> Iterator[Defect]:
    """Inputs = records + failures, and `failed.jsonl` lists the failures."""
    folder, total = verdict.place.path, _inputs(made)
    if total is not None and total != verdict.records + verdict.failures:
        sums = f"{verdict.records} records and {verdict.failures} failures"
        yield Defect(str(folder), "lost", f"{total} inputs, but {sums}")
    listed = folder / FAILED
    lines = listed.read_bytes().count(b"\n") if listed.is_file() else 0
    if made and lines != verdict.failures:
        note = f"lists {lines} failures, the shards {verdict.failures}"
        yield Defect(str(listed), "failures", f"{note}; the same command again writes it")


def _rows(manifest: Path, accounted: set[str]) -> Iterator[Defect]:
    """Every row of the manifest is a record or a failure, and nothing else is."""
    try:
        rows = {row_name(row) for row in read_each_row(manifest)}
    except DataError as error:
        yield Defect(error.item, error.reason, str(error).removeprefix(f"{error.item}: "))
        return
    for key in sorted(rows - accounted):
        yield Defect(key, "lost", f"stands in {manifest}, but neither in a shard nor as failed")
    for key in sorted(accounted - rows):
        yield Defect(key, "unknown", f"stands in a shard, but not in {manifest}")
