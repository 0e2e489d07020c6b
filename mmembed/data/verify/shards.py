"""Whether a folder of shards is whole and holds what it says: every byte, every record.

A shard is compared with its index, each record with what the index says of it, all shards with
`manifest.json` and with the manifest they were made of. Defects are listed, never raised: one must
not hide another.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys

from mmembed.data.locations import FAILED, Json, Location, Progress
from mmembed.data.manifest.jsonl import each_row, row_name
from mmembed.data.shards.format import members_of, read_member
from mmembed.data.shards.layout import shard_path
from mmembed.data.shards.metadata import MANIFEST, crop_form, rename_layers
from mmembed.data.shards.records import (
    FEATURES,
    OLDER,
    PACKED_CROPS,
    SOUND,
    from_record,
    is_older,
    to_record,
)
from mmembed.data.shards.sidecar import parse_sidecar
from mmembed.data.verify.defect import (
    Defect,
    VerifyResult,
    check_finite,
    check_key,
    corrupt,
    defect_of,
)
from mmembed.data.verify.embeddings import (
    check_copies,
    check_embedding,
    check_origin,
    index_of,
    is_embedding,
    outliers,
)
from mmembed.errors import CorruptError, DataError, MmembedError

MOST_MISSING: Final = 10_000  # shards that are listed as missing

Shape: TypeAlias = tuple[int | None, ...]
_Form: TypeAlias = tuple[tuple[str, ...], tuple[Shape, ...]]
_FORMS: Final[dict[str, _Form]] = {
    "pooled": (("float16", "float32"), ((None,),)),
    "frames": (("float16", "float32"), ((None, None),)),
    "words": (("float16", "float32"), ((None, None),)),
    "steps": (("float16", "float32"), ((None, None, None),)),
    "layers": (("float16", "float32"), ((None, None), (None, None, None))),
}
"""Member -> dtypes and shapes allowed, None = any size; see docs/architecture.md."""
_FEATURES: Final = (("float32",), ((None, None),))


Known: TypeAlias = dict[str, dict[str, str]]
"""Kind of shards -> key -> where it was first seen. One for all folders that are to go together."""


def verify_shards(
    location: Location, known: Known, on_progress: Progress = lambda done, of: None
) -> VerifyResult:
    """Check a folder of shards.

    Args:
        location: the folder.
        known: keys seen in other folders; this folder's are added.
        on_progress: called with the bytes done so far and their total.
    """
    result, folder, metadata = VerifyResult(location), location.path, location.metadata
    result.add(_leftovers(folder))
    result.add(check_copies(folder))
    # The same clips embedded from other streams have the same keys, and shall.
    encoder = metadata.get("encoder_sha256")
    kind = f"{encoder} {metadata.get('streams')}" if encoder else "features"
    checks = _Checks(metadata, known.setdefault(kind, {}))
    accounted: set[str] = set()
    names, unread = set(), False
    total = sum(path.stat().st_size for path in folder.glob("shard-*.tar"))
    for sidecar in location.sidecars:
        names.add(sidecar.stem)
        result.parts += 1
        try:
            index = parse_sidecar(str(sidecar), sidecar.read_bytes())
        except CorruptError as error:
            result.add([corrupt(sidecar, "index", str(error).removeprefix(f"{sidecar}: "))])
            unread = True
            continue
        failed = index["provenance"].get("failed", [])
        accounted |= {record["key"] for record in index["records"]}
        accounted |= {str(failure.get("key")) for failure in failed}
        result.records += index["count"]
        result.failures += len(failed)
        result.size += index["bytes"]
        result.add(checks.shard(sidecar.with_suffix(".tar"), index))
        on_progress(result.size, total)
    result.add(outliers(checks.norms))
    result.add(_shards(folder, names, metadata))
    if not unread:  # else it is not known what is lost
        result.add(_totals(result, metadata))
        if location.manifest is not None:
            result.add(_rows(location.manifest, accounted))
    return result


def _leftovers(folder: Path) -> Iterator[Defect]:
    """Harmless: readers do not see them, and the next run sweeps them."""
    note = "left by a writer that was killed or is still at work; the same command again goes on"
    for path in sorted(folder.glob(".*.tmp")):
        yield Defect(str(path), "leftover", note, exit_code=0)
    for path in sorted(folder.glob("shard-*.tar")):
        if not path.with_suffix(".json").exists():
            yield Defect(str(path), "no_index", note, exit_code=0)


@dataclass
class _Checks:
    """Of the shards of a folder, one after another.

    Attributes:
        metadata: what the folder says of all.
        keys: key -> the shard where it was first seen.
        widths: member -> its width, and the key it was first seen in.
        norms: key -> length of its pooled vector.
        forms: `_FORMS`, and that of the face crops of the shard.
    """

    metadata: Json
    keys: dict[str, str]
    widths: dict[str, tuple[int, str]] = field(default_factory=dict)
    norms: dict[str, float] = field(default_factory=dict)
    forms: Mapping[str, _Form] = field(default_factory=dict)

    def shard(self, tar: Path, index: Json) -> Iterator[Defect]:
        yield from check_origin(tar, rename_layers(index["provenance"]), self.metadata)
        try:
            crops = crop_form(index["provenance"])
        except CorruptError as error:
            yield corrupt(tar, "crops", f"in its index {error}")
            return
        self.forms = {**_FORMS, "video": (("uint8",), ((None, *crops.shape),))}
        if not tar.is_file():
            again = f"delete {tar.stem}.json and make it again"
            yield corrupt(tar, "missing", f"only its index is there; {again}")
            return
        remedy = "delete it and its .json and make it again"
        with tar.open("rb") as file:
            if (size := tar.stat().st_size) != index["bytes"]:
                yield corrupt(tar, "size", f"{size} bytes, {index['bytes']} were written; {remedy}")
            elif hashlib.file_digest(file, "sha256").hexdigest() != index["sha256"]:
                yield corrupt(tar, "checksum", f"its SHA-256 differs; {remedy}")
            else:
                yield from _samples(tar, index)
            for record in index["records"]:
                key = record["key"]
                yield from check_key(key)
                if key in self.keys:
                    yield Defect(key, "duplicate", f"stands in {self.keys[key]} and in {tar}")
                self.keys.setdefault(key, str(tar))
                yield from self.record(file, record)

    def record(self, tar: BinaryIO, record: Json) -> Iterator[Defect]:
        key, members = record["key"], {}
        for member in members_of(record):
            try:
                members[member.name] = read_member(tar.fileno(), member)
            except ValueError as error:
                yield corrupt(key, "damaged", f"{tar.name}: {error}")
        for name, value in members.items():
            if isinstance(value, np.ndarray) and name != SOUND:  # of one form, always
                yield from self.array(
                    key, "video" if name == PACKED_CROPS else name.removesuffix(".npy"), value
                )
        if is_older(members):
            yield corrupt(key, "older", OLDER)
        elif len(members) == len(record["members"]):
            yield from _index_of(key, record["meta"], members)
        if is_embedding(members):
            yield from check_embedding(key, members, self.metadata)
        if isinstance(pooled := members.get("pooled.npy"), np.ndarray):
            self.norms[key] = float(np.linalg.norm(pooled.astype(np.float64)))

    def array(self, key: str, name: str, array: NDArray[Any]) -> Iterator[Defect]:
        """Of the documented dtype and shape, as wide as in the other records, finite."""
        none: _Form = ((), ())
        dtypes, shapes = _FEATURES if name.startswith(FEATURES) else self.forms.get(name, none)
        fits = (
            array.ndim == len(shape)
            and all(size in (None, n) for n, size in zip(array.shape, shape, strict=True))
            for shape in shapes
        )
        if dtypes and (array.dtype.name not in dtypes or not any(fits)):
            allowed = " or ".join(map(str, shapes)).replace("None", "any")
            found = f"{name} is {array.dtype} {array.shape}"
            yield Defect(key, "form", f"{found}; {' or '.join(dtypes)} {allowed} is expected")
        elif array.ndim:
            width, first = self.widths.setdefault(name, (array.shape[-1], key))
            if array.shape[-1] != width:
                found = f"{name} has the width {array.shape[-1]}, in {first} {width}"
                yield Defect(key, "width", f"{found}; all records of a folder have the same")
        yield from check_finite(key, name, array)


def _samples(tar: Path, index: Json) -> Iterator[Defect]:
    """What webdataset makes of the tar must be the records of the index, at the same places."""
    listed = {
        record["key"]: {member.name: member[1:3] for member in members_of(record)}
        for record in index["records"]
        if record["members"]
    }
    try:
        with tarfile.open(tar, "r:") as file:
            members = [
                {"fname": member.name, "data": (member.offset_data, member.size), "__url__": ""}
                for member in file
            ]
        samples = {sample.pop("__key__"): sample for sample in group_by_keys(members, lcase=False)}
    except (tarfile.TarError, ValueError) as error:
        yield corrupt(tar, "differs", f"not a tar of records ({error}), as its index has it")
        return
    for sample in samples.values():
        del sample["__url__"]
    differ = sorted(k for k in {*samples, *listed} if samples.get(k) != listed.get(k))
    if differ or len(members) != sum(map(len, listed.values())):
        others = f" and {len(differ) - 1} others" if differ[1:] else ""
        where = f" in {differ[0]}{others}" if differ else ""
        yield corrupt(tar, "differs", f"its index differs from it{where}")


def _index_of(key: str, meta: Json, members: Json) -> Iterator[Defect]:
    """What the index says of a record must be what the record says."""
    try:
        if is_embedding(members):
            expected = index_of(members)
        else:
            example = from_record(key, members)
            own, _, found = to_record(example)
            expected = dict(found)
            if own != key:
                yield Defect(key, "record", f"its utterance has the key {own}")
            if not example.streams:
                yield Defect(key, "no_streams", "has neither audio, video nor text")
    except (MmembedError, ValueError, TypeError, KeyError, AttributeError) as error:
        yield Defect(key, "record", f"is neither prepared features nor embeddings: {error}")
        return
    for name, value in expected.items():
        if name in meta and meta[name] != value:
            differs = f"{name} is {meta[name]!r} in the index, {value!r} in the record"
            yield Defect(key, "meta", differs)


def _shards(folder: Path, names: Collection[str], metadata: Json) -> Iterator[Defect]:
    """All shards that `manifest.json` promises must be there."""
    if not metadata:
        note = "missing or damaged: the run did not end; the same command again goes on"
        yield Defect(str(folder / MANIFEST), "unfinished", note)
    total, size = _inputs(metadata), metadata.get("records_per_shard")
    if total is not None and isinstance(size, int) and size > 0:
        planned = (shard_path(folder, number) for number in range(-(-total // size)))
        missing = (path for path in planned if path.stem not in names)
        for path in islice(missing, MOST_MISSING):
            yield corrupt(path, "missing", "not there; the same command again makes it")
        if next(missing, None) is not None:  # a number of clips may be anything
            yield corrupt(folder, "missing", f"more than {MOST_MISSING} shards are not there")


def _inputs(metadata: Json) -> int | None:
    total = metadata.get("utterances", metadata.get("clips"))
    return total if isinstance(total, int) else None


def _totals(result: VerifyResult, metadata: Json) -> Iterator[Defect]:
    """Inputs = records + failures, and `failed.jsonl` lists the failures."""
    folder, total = result.location.path, _inputs(metadata)
    if total is not None and total != result.records + result.failures:
        sums = f"{result.records} records and {result.failures} failures"
        yield Defect(str(folder), "lost", f"{total} inputs, but {sums}")
    listed = folder / FAILED
    lines = listed.read_bytes().count(b"\n") if listed.is_file() else 0
    if metadata and lines != result.failures:
        note = f"lists {lines} failures, the shards {result.failures}"
        yield Defect(str(listed), "failures", f"{note}; the same command again writes it")


def _rows(manifest: Path, accounted: set[str]) -> Iterator[Defect]:
    """Every row of the manifest is a record or a failure, and nothing else is."""
    try:
        rows = {row_name(row) for row in each_row(manifest)}
    except DataError as error:
        yield defect_of(error)
        return
    for key in sorted(rows - accounted):
        yield Defect(key, "lost", f"stands in {manifest}, but neither in a shard nor as failed")
    for key in sorted(accounted - rows):
        yield Defect(key, "unknown", f"stands in a shard, but not in {manifest}")
