"""Plain values in a file that needs no trust: JSON for the small, raw bytes for the arrays.

A process that was perhaps attacked writes what it read; another one reads this without running
anything the file says. Plain are None, bool, int, float, complex, str, bytes, list, tuple, dict,
numpy scalars, and arrays of numbers, of text, and of plain objects; a set comes as a sorted list.

Numbers and tuples can be chosen so that all of them have the same hash: then each costs a
comparison with all before it. So no set is built here, and dicts within the time that is allowed.

Layout: the bytes of arrays, each from a multiple of 64 on; the JSON; its length in 8 bytes. In the
JSON a list is ["list", ...] and an array ["array", type, shape, offset]; see `_pack`.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, Final

import numpy as np

DEEPEST: Final = 64  # containers within containers
_ALIGNMENT: Final = 64
_LENGTH: Final = 8
_SHORT: Final = 8  # longer lists of floats are written as bytes: features are kept so, too
_CHECKED: Final = 128  # keys and values after which a look at the clock is worth it
_TYPE: Final = re.compile(r"[<|][biufcSU]\d{1,9}")

_CONTAINERS: Final[Mapping[str, Callable[[list[Any]], Any]]] = {
    "list": list,
    "tuple": tuple,
    "complex": lambda parts: complex(*parts),
}


def write_plain(value: object, file: BinaryIO) -> None:
    """Write a plain value; an array that occurs twice is written once.

    Raises:
        ValueError: naming what is not plain, or that the nesting is too deep or has no end.
    """
    packed = _Writer(file).pack(value, 0)
    text = json.dumps(packed).encode()
    file.write(text + len(text).to_bytes(_LENGTH, "little"))
    file.flush()


def read_plain(file: BinaryIO, until: float = math.inf) -> Any:
    """The value that `write_plain` wrote.

    Args:
        file: open for reading, with a file number.
        until: time.monotonic() at which it is given up.

    Arrays are views of the file, mapped privately: they take no memory until they are looked at,
    may be changed without changing the file, and stay when it is unlinked.

    Raises:
        ValueError: the file was not written by `write_plain`.
        TimeoutError: it takes longer.
    """
    try:
        return _Reader(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), until).read()
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a file of plain values ({error})") from None


class _Writer:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.written: dict[int, list[Any]] = {}

    def pack(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if depth > DEEPEST:
            raise ValueError(f"values are nested more than {DEEPEST} deep, or within themselves")
        if kind is list and len(value) > _SHORT and set(map(type, value)) == {float}:
            return ["floats", len(value), self.put(np.array(value).view(np.uint8).data)]
        if kind in (set, frozenset):
            return ["list", *(self.pack(item, depth + 1) for item in sorted(value, key=repr))]
        if kind in (list, tuple):
            return [kind.__name__, *(self.pack(item, depth + 1) for item in value)]
        if kind is dict:
            if not all(map(_is_key, value)):
                raise ValueError("holds a dict with a set as a key")
            flat = (part for pair in value.items() for part in pair)
            return ["dict", *(self.pack(part, depth + 1) for part in flat)]
        if kind is complex:
            return ["complex", value.real, value.imag]
        if kind in (bytes, bytearray):
            return self.once(value, lambda: ["bytes", len(value), self.put(value)])
        if isinstance(value, np.generic | np.ndarray) and value.dtype.kind == "O":
            items = [self.pack(item, depth + 1) for item in np.asarray(value).ravel()]
            return ["objects", list(value.shape), *items]
        if isinstance(value, np.generic):
            return ["scalar", *self.array(np.asarray(value))]
        if isinstance(value, np.ndarray):
            return self.once(value, lambda: ["array", *self.array(value)])
        raise ValueError(f"holds a {kind.__module__}.{kind.__qualname__}, which is no plain value")

    def once(self, value: object, pack: Callable[[], list[Any]]) -> list[Any]:
        if id(value) not in self.written:
            self.written[id(value)] = pack()
        return self.written[id(value)]

    def array(self, value: np.ndarray[Any, Any]) -> list[Any]:
        dtype = np.dtype(f"{value.dtype.kind}1") if not value.dtype.itemsize else value.dtype
        whole = np.ascontiguousarray(value, dtype.newbyteorder("<"))
        if not _TYPE.fullmatch(whole.dtype.str):
            raise ValueError(f"holds an array of {value.dtype}; numbers and text are allowed")
        return [whole.dtype.str, list(value.shape), self.put(whole.view(np.uint8).data)]

    def put(self, data: bytes | bytearray | memoryview) -> int:
        self.file.write(bytes(-self.file.tell() % _ALIGNMENT))
        start = self.file.tell()
        self.file.write(data)
        return start


def _is_key(value: object) -> bool:
    """Whether it is hashable when it is read again."""
    kind = type(value)
    return kind is not frozenset and (kind is not tuple or all(map(_is_key, value)))  # type: ignore[call-overload]


class _Reader:
    def __init__(self, data: mmap.mmap, until: float) -> None:
        self.data, self.until = data, until
        self.copied = 0
        self.copies: dict[tuple[int, int], bytes] = {}

    def read(self) -> Any:
        end = len(self.data) - _LENGTH
        start = end - int.from_bytes(self.data[end:], "little")
        if start < 0:
            raise ValueError("cut short")
        return self.unpack(json.loads(self.data[start:end]))

    def unpack(self, packed: Any) -> Any:
        if not isinstance(packed, list):
            return packed
        if time.monotonic() > self.until:
            raise TimeoutError
        kind, *parts = packed
        if kind == "dict":
            return self.dict(parts)
        if kind == "bytes":
            return self.bytes(*parts)
        if kind == "floats":
            self.count(8 * parts[0])
            return self.array("<f8", [parts[0]], parts[1]).tolist()
        if kind in ("array", "scalar"):
            array = self.array(*parts)
            return array.reshape(())[()] if kind == "scalar" else array
        if kind == "objects":
            objects = np.empty(len(parts) - 1, object)
            for place, part in enumerate(parts[1:]):
                objects[place] = self.unpack(part)
            return objects.reshape(parts[0])
        return _CONTAINERS[kind]([self.unpack(part) for part in parts])

    def dict(self, parts: list[Any]) -> dict[Any, Any]:
        if len(parts) % 2:
            raise ValueError("a key without a value")
        made: dict[Any, Any] = {}
        for place in range(0, len(parts), 2):
            if not place % _CHECKED and time.monotonic() > self.until:
                raise TimeoutError
            made[self.unpack(parts[place])] = self.unpack(parts[place + 1])
        return made

    def array(self, dtype: str, shape: list[int], offset: int) -> np.ndarray[Any, Any]:
        if not _TYPE.fullmatch(dtype) or any(length < 0 for length in shape):
            raise ValueError(f"an array of {dtype} {shape}")
        return np.frombuffer(self.data, dtype, math.prod(shape), offset).reshape(shape)

    def bytes(self, length: int, offset: int) -> bytes:
        place = (offset, length)
        if place not in self.copies:
            self.count(length)
            if min(place) < 0:
                raise ValueError(f"bytes at {place}")
            self.copies[place] = self.data[offset : offset + length]
        return self.copies[place]

    def count(self, length: int) -> None:
        """What is copied may not be more than what is there."""
        self.copied += length
        if self.copied > len(self.data):
            raise ValueError("more bytes than the file has")
