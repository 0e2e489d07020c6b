"""Data sets that circulate as pickles, read without running anything that they ask for.

A pickle is a program: it may name any function of any module and have it called. Here

- every opcode is looked at first; names that are not on a short list, or that are computed, opcodes
  that build other objects, and whatever follows the end are refused before anything is built;
- a name on the list stands for a function of this module and never for what it is named after, so
  that numpy unpickles, trusting shapes and types, only after these are checked;
- all of it happens in a process with limits, and what comes back is no pickle.

The scanner is own code on the tables and readers of `pickletools`: its `genops` takes four times as
long on lists of numbers (2.1 against 0.5 microseconds each), which is too slow for files of a
gigabyte, and no library in use checks pickles against a list of allowed names.

All protocols are read, those of both major versions of numpy, and files of Python 2, whose byte
strings become text by latin-1: words beyond ASCII in them may be UTF-8, as which
`text.encode("latin1").decode()` reads them. This is the only module that may unpickle.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from mmembed.data.untrusted.sandbox import UnsafeFileError, run_sandboxed


def read_pickle(path: Path) -> Any:
    """The values of a pickle: those of `serialize`, arrays mapped from a temporary file.

    They come as dict, list, str, bytes, Python's numbers and arrays: tuples and arrays of objects
    are lists, sets sorted lists, an OrderedDict or a defaultdict is a dict.

    Raises:
        DataError: with reason "unsafe" if it asks for anything beyond plain values, or "missing",
            "damaged", "too_large", "too_slow", "crashed".
    """
    return run_sandboxed(_read, path)


def _read(path: str) -> Any:
    """Runs in the sandbox."""
    with open(path, "rb") as file:
        _scan(file, Path(path).stat().st_size)
        file.seek(0)
        return _Unpickler(file, encoding="latin1").load()


_OPCODES: Final = {
    opcode.code.encode("latin1"): opcode for opcode in pickletools.opcodes if opcode.proto <= 5
}
_REFUSED: Final = (
    *("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4"),  # values from elsewhere
    *("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"),  # objects of classes
    *("NEXT_BUFFER", "READONLY_BUFFER"),  # values from other files
)
_TEXTS: Final = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
_NUMBERS: Final = {b"G": 8, b"J": 4, b"K": 1, b"M": 2}
"""Bytes after the opcodes that most of a list consists of, which are skipped fast."""


def _scan(file: BinaryIO, size: int) -> None:
    """Go over all opcodes and skip the data between them.

    Raises:
        UnsafeFileError: for the first thing that a file of plain values does not hold.
    """
    known = {part for name in NAMES for part in name}
    memo: dict[int, str] = {}  # only of texts that may be names: a file may remember millions
    remembered = 0
    names: tuple[str | None, str | None] = (None, None)  # last two values, if they are texts
    while code := file.read(1):
        if code in _NUMBERS:
            names = None, None
            if len(file.read(_NUMBERS[code])) < _NUMBERS[code]:
                raise _cut_short()
            continue
        opcode = _OPCODES.get(code)
        if opcode is None:
            raise UnsafeFileError(f"no pickle: opcode {code!r}", "damaged")
        name = opcode.name
        if name in _REFUSED:
            what = f"opcode {name} makes more than plain values; nothing was run"
            raise UnsafeFileError(what)
        try:
            argument: Any = opcode.arg.reader(file) if opcode.arg else None
        except UnicodeDecodeError:  # a text of Python 2, or no name
            argument = None
        except ValueError:  # a length beyond the end of the file
            raise _cut_short() from None
        if name in _TEXTS:
            names = names[1], argument
        elif name == "MEMOIZE" or name.endswith("PUT"):
            place = remembered if name == "MEMOIZE" else argument
            remembered += 1
            memo.pop(place, None)
            if names[1] in known:
                memo[place] = names[1]
        elif name.endswith("GET"):
            names = names[1], memo.get(argument)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, function = (argument or "? ?").split(" ", 1) if name == "GLOBAL" else names
            if module is None or function is None:
                raise UnsafeFileError("it computes the name of a function; nothing of it was run")
            _named(module, function)
            names = None, None
        elif name == "STOP":
            if rest := size - file.tell():
                what = f"{rest} bytes follow its end; files of one pickle are read"
                raise UnsafeFileError(what, "damaged")
            return
        elif name not in ("FRAME", "PROTO"):
            names = None, None
    raise _cut_short()


def _named(module: str, function: str) -> _Name:
    name = NAMES.get((module, function))
    if name is None:
        raise UnsafeFileError(
            f"it asks for {module}.{function}, where plain values and numpy arrays are read; "
            "nothing of it was run"
        )
    return name


def _cut_short() -> UnsafeFileError:
    return UnsafeFileError("no pickle, or one that was cut short", "damaged")


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, function: str) -> _Name:
        return _named(module, function)

    def persistent_load(self, _pid: object) -> object:
        raise UnsafeFileError("it refers to values outside of it")


class _Name:
    """What a name of the list stands for: it can be called, and nothing else can be done to it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, _state: object) -> None:
        raise UnsafeFileError("it changes a function")


class _Type:
    """A dtype: numbers, or text, or objects; no records, no dates."""

    __slots__ = ("dtype",)

    def __init__(self, code: str, *_: object) -> None:
        if not _TYPES.fullmatch(code):
            raise UnsafeFileError(f"arrays of {code!r}; numbers, text and objects are read")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, order, *parts = state[:5]
        if parts != [None, None, None] or order not in ("<", ">", "|", "="):
            raise UnsafeFileError("arrays of records; numbers, text and objects are read")
        self.dtype = self.dtype.newbyteorder(order)


_TYPES: Final = re.compile(r"\?|[biufc]\d{1,2}|[SU]\d{0,9}|O\d?")


class _Array(np.ndarray[Any, Any]):
    """An array whose state is checked before numpy sees it, since numpy does not check it."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, kind, fortran, data = state
        raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2
        dtype = _checked(kind, shape, raw)
        checked: Any = (1, shape, dtype, bool(fortran), raw)
        super().__setstate__(checked)


def _checked(kind: _Type, shape: tuple[int, ...], data: Any) -> np.dtype[Any]:
    """The dtype, once shape, dtype and data fit each other."""
    dtype = kind.dtype
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise UnsafeFileError(f"an array of shape {shape!r}", "damaged")
    objects, count = dtype.kind == "O", math.prod(shape)
    if (
        type(data) not in ((list,) if objects else (bytes, bytearray))
        or len(data) != count * (1 if objects else dtype.itemsize)
        or (count and not dtype.itemsize)
    ):
        raise UnsafeFileError(f"an array of shape {shape} and {dtype} with other data", "damaged")
    if dtype.kind == "U" and isinstance(data, bytes | bytearray):
        characters = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder))
        if characters.max(initial=0) > sys.maxunicode:
            raise UnsafeFileError("an array of text with invalid characters", "damaged")
    return dtype


def _reconstruct(kind: object, _shape: object, _code: object) -> _Array:
    if kind is not NAMES["numpy", "ndarray"]:
        raise UnsafeFileError("a kind of array of its own")
    return _Array((0,), np.uint8)


def _from_buffer(
    data: bytes | bytearray, kind: _Type, shape: Any, order: str, axes: Any = None
) -> _Array:
    """As numpy does it; axes are given for an array stored with them in another order."""
    shape = (shape,) if type(shape) is int else shape
    flat: _Array = np.frombuffer(data, _checked(kind, shape, data)).view(_Array)
    if order == "K" and axes is not None:
        flat = flat.reshape(shape, order="C").transpose(axes)
    else:
        flat = flat.reshape(shape, order="F" if order == "F" else "C")
    return flat


def _scalar(kind: _Type, data: bytes | str = b"") -> Any:
    raw = data.encode("latin1") if isinstance(data, str) else data
    if kind.dtype.kind in "SU" and not kind.dtype.itemsize and not raw:
        return kind.dtype.type()
    if kind.dtype == object:
        raise UnsafeFileError("a numpy scalar of objects")
    return np.frombuffer(raw, _checked(kind, (1,), raw))[0]


def _encode(text: str, encoding: str) -> bytes:
    """How bytes come in old protocols; other codecs would build anything from anything."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise UnsafeFileError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


def _default_dict(factory: object = None, *pairs: Any) -> dict[Any, Any]:
    if not isinstance(factory, _Name | None):
        raise UnsafeFileError("a defaultdict of something else")
    return dict(*pairs)


def _bytes(data: bytes = b"") -> bytes:
    if type(data) is not bytes:
        raise UnsafeFileError("bytes that are made of something else")
    return data


def _factory() -> None:
    """What a defaultdict makes, such as list; nothing is made here."""


_READ_AS: Final[Mapping[tuple[str, ...], Mapping[str, Callable[..., Any]]]] = {
    ("numpy.core.multiarray", "numpy._core.multiarray"): {
        "_reconstruct": _reconstruct,
        "scalar": _scalar,
    },
    ("numpy.core.numeric", "numpy._core.numeric"): {"_frombuffer": _from_buffer},
    ("numpy",): {"ndarray": _factory, "dtype": _Type},
    ("_codecs",): {"encode": _encode},
    ("collections",): {"OrderedDict": dict, "defaultdict": _default_dict},
    ("builtins", "__builtin__"): {
        "set": set,
        "frozenset": frozenset,
        "complex": complex,
        "bytes": _bytes,
        "bytearray": _bytes,
        **dict.fromkeys(("list", "dict", "int", "float", "str"), _factory),
    },
}
NAMES: Final[Mapping[tuple[str, str], _Name]] = {
    (module, name): _Name(function)
    for modules, functions in _READ_AS.items()
    for module in modules
    for name, function in functions.items()
}
"""All that a pickle may ask for, and what it gets."""
