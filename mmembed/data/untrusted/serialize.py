"""Plain values as JSON and arrays, which are read without running anything.

Plain are None, bool, int, float, complex, str, bytes, list, tuple, dict, set, numpy scalars, and
arrays of numbers, of text, and of plain objects. They come back in fewer types: tuples, sets
(sorted) and arrays of objects as lists, numpy scalars as Python's. In the JSON

    {"$array": REF}   {"$bytes": REF}   {"$floats": REF}   {"$complex": [REAL, IMAGINARY]}

stand for what an array holds, and {"$dict": [[KEY, VALUE], ...]} for a dict whose keys are not all
texts, or begin with "$"; a list as a key is a tuple. `Packer` lets its user store the arrays;
`dump` writes them into the same file, each from a multiple of 64 on, then the JSON, then its length
in 8 bytes, and a REF is [dtype, shape, offset].

`load` trusts nothing. Numbers and tuples can be chosen so that all of them have the same hash: then
each costs a comparison with all before it. So it builds no sets, and dicts within the time that is
allowed. Own code, since no format of others holds both nested values and arrays that are mapped
instead of read.
"""

from __future__ import annotations

import json
import math
import mmap
import re
import time
from collections.abc import Callable
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

DEEPEST: Final = 64  # containers within containers
_ALIGNMENT: Final = 64
_LENGTH: Final = 8
_SHORT: Final = 8  # longer lists of floats are stored as arrays: some data sets keep features so
_CHECKED: Final = 128  # keys after which a look at the clock is worth it
_TYPE: Final = re.compile(r"[<|][biufcSU]\d{1,9}")

KeyPath = tuple[Any, ...]
"""Where a value is: () or (the path of its container, its key or number)."""


def dump(value: object, file: BinaryIO) -> None:
    """Write a plain value; an array that occurs twice is written once.

    Raises:
        ValueError: naming what is not plain, or that the nesting is too deep or has no end.
    """

    def put(_path: KeyPath, array: NDArray[Any]) -> list[Any]:
        whole = np.ascontiguousarray(array)
        file.write(bytes(-file.tell() % _ALIGNMENT))
        start = file.tell()
        file.write(whole.view(np.uint8).data)
        return [whole.dtype.str, list(array.shape), start]

    text = json.dumps(Packer(put, floats=True).pack(value)).encode()
    file.write(text + len(text).to_bytes(_LENGTH, "little"))
    file.flush()


def load(file: BinaryIO, until: float = math.inf) -> Any:
    """The value that `dump` wrote.

    Args:
        file: open for reading, with a file number.
        until: time.monotonic() at which it is given up.

    Arrays are views of the file, mapped privately: they take no memory until they are looked at,
    may be changed without changing the file, and stay when it is unlinked.

    Raises:
        ValueError: the file was not written by `dump`.
        TimeoutError: it takes longer.
    """
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        end = len(data) - _LENGTH
        start = end - int.from_bytes(data[end:], "little")
        if start < 0:
            raise ValueError("cut short")
        return json.loads(data[start:end], object_hook=_Unpacker(data, until))
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a file of plain values ({error})") from None


class Packer:
    """Turns plain values into JSON; `put` stores an array and returns its reference.

    Args:
        put: called with the path of a value and its array, little-endian.
        floats: whether to store long lists of floats as arrays.
    """

    def __init__(
        self, put: Callable[[KeyPath, NDArray[Any]], Any], *, floats: bool = False
    ) -> None:
        self._put, self._floats = put, floats
        self._stored: dict[int, tuple[object, dict[str, Any]]] = {}

    def pack(self, value: Any, path: KeyPath = (), depth: int = 0) -> Any:
        """The value as JSON.

        Raises:
            ValueError: see `dump`.
        """
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if depth > DEEPEST:
            raise ValueError(f"values are nested more than {DEEPEST} deep, or within themselves")
        if kind is complex:
            return {"$complex": [value.real, value.imag]}
        if kind in (bytes, bytearray):
            return self._once("$bytes", value, np.frombuffer(value, np.uint8), path)
        if isinstance(value, np.ndarray | np.generic):
            return self._pack_array(value, path, depth)
        if kind is dict:
            return self._pack_dict(value, path, depth)
        if kind in (set, frozenset):
            value = sorted(value, key=repr)
        elif kind not in (list, tuple):
            name = f"{kind.__module__}.{kind.__qualname__}"
            raise ValueError(f"holds a {name}, which is no plain value")
        if self._floats and len(value) > _SHORT and set(map(type, value)) == {float}:
            return {"$floats": self._put(path, np.array(value))}
        return [self.pack(item, (path, n), depth + 1) for n, item in enumerate(value)]

    def _pack_dict(self, value: dict[Any, Any], path: KeyPath, depth: int) -> dict[str, Any]:
        items = [(key, self.pack(item, (path, key), depth + 1)) for key, item in value.items()]
        if all(type(key) is str and not key.startswith("$") for key in value):
            return dict(items)
        if not all(map(_is_key, value)):
            raise ValueError("holds a dict with a set as a key")
        return {"$dict": [[self.pack(key, path, depth + 1), item] for key, item in items]}

    def _pack_array(self, value: NDArray[Any] | np.generic, path: KeyPath, depth: int) -> Any:
        dtype = value.dtype.newbyteorder("<")
        if dtype.kind != "O" and not _TYPE.fullmatch(dtype.str):
            raise ValueError(f"holds an array of {value.dtype}; numbers and text are allowed")
        if isinstance(value, np.generic) or dtype.kind == "O":
            plain = value.tolist()
            if not isinstance(plain, np.generic):  # a long double has no other type
                return self.pack(plain, path, depth + 1)
        dtype = np.dtype(f"{dtype.kind}1") if not dtype.itemsize else dtype
        return self._once("$array", value, np.asarray(value, dtype), path)

    def _once(self, tag: str, value: object, array: NDArray[Any], path: KeyPath) -> dict[str, Any]:
        if id(value) not in self._stored:  # the value is kept so that no other gets its id
            self._stored[id(value)] = value, {tag: self._put(path, array)}
        return self._stored[id(value)][1]


def _is_key(value: object) -> bool:
    """Whether it is hashable when it is read again."""
    return not isinstance(value, frozenset) and (
        not isinstance(value, tuple) or all(map(_is_key, value))
    )


class _Unpacker:
    """Turns an object of the JSON back into what it stands for."""

    def __init__(self, data: mmap.mmap, until: float) -> None:
        self.data, self.until = data, until
        self.copied = 0
        self.copies: dict[str, bytes] = {}

    def __call__(self, item: dict[str, Any]) -> Any:
        self.check_time()
        if not next(iter(item), "").startswith("$"):
            return item
        ((tag, value),) = item.items()
        if tag == "$dict":
            made = {}
            for number, (key, inner) in enumerate(value):
                if not number % _CHECKED:
                    self.check_time()
                made[_as_key(key)] = inner
            return made
        if tag == "$complex":
            return complex(*value)
        array = self.array(*value)
        if tag == "$array":
            return array
        if tag == "$bytes" and (place := str(value)) in self.copies:
            return self.copies[place]
        self.copied += array.nbytes
        if self.copied > len(self.data):
            raise ValueError("more bytes than the file has")
        if tag == "$floats":
            return array.tolist()
        if tag == "$bytes":
            return self.copies.setdefault(place, array.tobytes())
        raise ValueError(f"an object {tag}")

    def array(self, dtype: str, shape: list[int], offset: int) -> NDArray[Any]:
        if not _TYPE.fullmatch(dtype) or any(length < 0 for length in shape):
            raise ValueError(f"an array of {dtype} {shape}")
        return np.frombuffer(self.data, dtype, math.prod(shape), offset).reshape(shape)

    def check_time(self) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError


def _as_key(key: Any) -> Any:
    return tuple(map(_as_key, key)) if isinstance(key, list) else key
