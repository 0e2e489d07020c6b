"""The index of one shard, `shard-000000.json`: read, and refused where it cannot be one."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mmembed.data.shards.format import SEAL, no_number, sealed
from mmembed.errors import CorruptError

_FIELDS: Final = {"bytes", "count", "provenance", "records", "sha256"}
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def read_sidecar(name: str, data: bytes, tar_size: int | None) -> dict[str, Any]:
    """A checked index of a tar that is there and as long as it says.

    Args:
        name: of its file, for messages.
        data: what the file holds.
        tar_size: bytes of its tar, None = there is none.

    Raises:
        CorruptError: the index is damaged, or its tar is missing or of another size.
    """
    index, tar = parse_sidecar(name, data), f"{name.removesuffix('.json')}.tar"
    if tar_size is None:
        raise CorruptError(f"{tar}: missing, its index {name} is there; delete that")
    if tar_size != index["bytes"]:
        raise CorruptError(
            f"{tar}: damaged: {tar_size} bytes, {index['bytes']} were written; "
            "delete it and its .json"
        )
    return index


def parse_sidecar(name: str, data: bytes) -> dict[str, Any]:
    """A checked index, whatever its tar is.

    Args:
        name: of its file, for messages.
        data: what the file holds.

    Raises:
        CorruptError: it is damaged.
    """
    try:
        index = parse_object(name, data)
    except CorruptError as error:
        raise CorruptError(f"{error}; delete it and its .tar") from None
    body, seal, _ = data.rpartition(SEAL)  # shards of before there were seals have none
    if seal and (index.pop("sidecar_sha256", None) is None or sealed(body + b"}") != data):
        raise CorruptError(f"{name}: damaged: its checksum differs; delete it and its .tar")
    try:
        _check_index(index)
    except ValueError as error:
        message = f"{name}: damaged: not the index of a shard: {error}; delete it and its .tar"
        raise CorruptError(message) from None
    return index


def _check_index(index: Mapping[str, Any]) -> None:
    """Raises ValueError where an index is none, even one whose checksum is right."""
    if set(index) != _FIELDS:
        raise ValueError(f"its fields are {', '.join(sorted(index))[:80]}")
    records, provenance, size = index["records"], index["provenance"], index["bytes"]
    if not isinstance(records, list) or not isinstance(provenance, dict):
        raise ValueError("records and provenance are of other types")
    if not is_count(size, 2**63) or not is_count(index["count"], 2**63):
        raise ValueError("bytes and count are no sizes")
    if index["count"] != len(records):
        raise ValueError(f"{len(records)} records are there, {index['count']!r} were written")
    if not isinstance(index["sha256"], str) or not _SHA256.fullmatch(index["sha256"]):
        raise ValueError("sha256 is no checksum")
    failed = provenance.get("failed", [])
    if not isinstance(failed, list) or not all(map(_is_failure, failed)):
        raise ValueError("failed is no list of failures")
    end = 0
    for number, record in enumerate(records):
        try:
            end = _check_record(record, end, size)
        except ValueError as error:
            raise ValueError(f"record {number}: {error}") from None


def _check_record(record: Any, start: int, size: int) -> int:
    """The end of its last member, which is within the `size` bytes of the tar.

    Args:
        record: as it stands in an index.
        start: where the members of the record before end: none overlaps another.
        size: bytes of the tar.
    """
    if not isinstance(record, dict) or set(record) != {"key", "members", "meta"}:
        raise ValueError("key, members and meta are not all there")
    key, members = record["key"], record["members"]
    if not isinstance(key, str) or not key or "." in key:
        raise ValueError(f"its key is {repr(key)[:80]}")
    if not isinstance(members, dict) or not isinstance(record["meta"], dict):
        raise ValueError("members or meta are no objects")
    for name, numbers in members.items():
        name.encode()  # no index of columns holds half a character: UnicodeEncodeError
        limits = (size + 1, size + 1, 2**32)
        three = isinstance(numbers, list) and len(numbers) == 3
        if not (three and all(map(is_count, numbers, limits)) and sum(numbers[:2]) <= size):
            raise ValueError(f"{name} lies at {repr(numbers)[:80]} of {size} bytes")
    for offset, length, _ in sorted(members.values()):
        if offset < start:
            raise ValueError("a member lies within another")
        start = offset + length
    return start


def is_count(value: object, limit: int) -> bool:
    """Whether a value is a whole number, at least 0 and below the limit."""
    return type(value) is int and 0 <= value < limit


def _is_failure(value: object) -> bool:
    """What a shard keeps of an item that failed: texts by name."""
    texts = isinstance(value, dict) and all(isinstance(text, str) for text in value.values())
    return texts and {"reason", "message"} <= value.keys()  # type: ignore[attr-defined]


def read_local_sidecar(path: Path) -> dict[str, Any]:
    """The checked index in a file."""
    tar = path.with_suffix(".tar")
    return read_sidecar(str(path), path.read_bytes(), tar.stat().st_size if tar.exists() else None)


def parse_object(name: str, data: bytes) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CorruptError: it is something else.
    """
    try:
        value = json.loads(data, parse_constant=no_number)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{name}: damaged: {error}") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{name}: damaged: not a JSON object")
    return value
