"""Frozen dataclasses to JSON and back, strict about names, types and bounds; units as types."""

from __future__ import annotations

import dataclasses
import functools
import json
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from mmembed.errors import CorruptError, UsageError, printable

LARGEST: Final = (1 << 63) - 1  # of any number: what a tensor's size or value can be
MOST_JSON: Final = 1 << 26  # bytes of a file of settings

Hz = float
Seconds = float
MAX_SECONDS: Final[Seconds] = 14_400.0  # four hours, of a recording, unless more is asked for
BATCH_FRAMES: Final = 1_000  # of 25 Hz, encoded together; vectors depend on it in rounding alone
TIMEOUT: Final[Seconds] = 120.0  # to decode one clip; most take a tenth of a second
Precision = Literal["fp32", "bf16"]  # of matrix products; weights and sums stay in float32

T = TypeVar("T")


@dataclass(frozen=True)
class Within:
    """Bounds of a number, to stand in its annotation: `Annotated[int, Within(1, 8)]`.

    Attributes:
        low: the least that it may be.
        high: the most.
        below: the most is just below `high`.
        above: the least is just above `low`.
    """

    low: float
    high: float
    below: bool = False
    above: bool = False

    def __contains__(self, value: float) -> bool:
        low = value > self.low if self.above else value >= self.low
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = "above" if self.above else "at least"
        return f"{low} {self.low:g} and {'below' if self.below else 'at most'} {self.high:g}"


# Bounds of what networks are made of. They keep a number in a file from being absurd; that its
# weights fit is seen when the sizes in their file are compared, before anything is built.
Width = Annotated[int, Within(1, 1 << 20)]
Count = Annotated[int, Within(0, 1 << 32)]  # of what the data tells; 0 until it is known
Depth = Annotated[int, Within(0, 1000)]
Heads = Annotated[int, Within(1, 1024)]
Dropout = Annotated[float, Within(0, 1, below=True)]
Weight = Annotated[float, Within(0, 1e9)]  # of a loss; 0 switches it off


@dataclass(frozen=True)
class Config:
    """A base of configurations: what their fields declare holds however one is made."""

    def __post_init__(self) -> None:
        """Check types, bounds, then what `check` says.

        Raises:
            UsageError: a field is not what it must be.
        """
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            _build(hint, getattr(self, name), name)
        self.check()

    def check(self) -> None:
        """What must hold between fields; raises `UsageError` where it does not."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        FileNotFoundError: it is not there.
        CorruptError: it is no JSON object, or far too large for settings.
    """
    if path.exists() and not path.is_file():
        raise CorruptError(f"{path}: is not a file")
    if path.stat().st_size > MOST_JSON:
        raise CorruptError(f"{path}: larger than {MOST_JSON >> 20} MB; it holds no settings")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{path}: not valid JSON ({error}); write it again") from None
    if not isinstance(value, dict):
        raise CorruptError(f"{path}: holds no JSON object; write it again")
    return value


def from_dict(kind: type[T], data: object, where: str = "") -> T:
    """Build the dataclass `kind` from nested builtins.

    Raises:
        UsageError: a name that `kind` does not have, one that is missing, or a value of another
            type or out of its bounds; says which.
    """
    if not isinstance(data, Mapping):
        raise UsageError(
            f"setting {where.rstrip('.') or kind.__name__} is {_shown(data)}: "
            f"must be a {kind.__name__}"
        )
    hints, fields = _hints(kind), dataclasses.fields(kind)  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise UsageError(
            f"unknown setting {where}{_shown(unknown[0], quote=False)}: {kind.__name__} has "
            f"{', '.join(sorted(hints))}"
        )
    for field in fields:
        no_default = field.default is field.default_factory is dataclasses.MISSING
        if no_default and field.name not in data:
            raise UsageError(f"setting {where}{field.name} is missing")
    return kind(**{name: _build(hints[name], data[name], f"{where}{name}") for name in data})


@functools.cache
def _hints(kind: type[Any]) -> Mapping[str, Any]:
    """Field -> its type with bounds."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _build(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        built = _build(args[0], value, where)
        for bounds in args[1:]:
            if isinstance(bounds, Within) and built not in bounds:
                raise UsageError(f"setting {where} is {_shown(value)}: must be {bounds}")
        return built
    if dataclasses.is_dataclass(hint):
        if isinstance(value, typing.cast(type[Any], hint)):
            return value
        return from_dict(typing.cast(type[Any], hint), value, f"{where}.")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), value, where)
    if origin is typing.Literal:
        if type(value) in map(type, args) and value in args:
            return value
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = args[:1] * len(value) if args[-1:] == (...,) else args
        if len(kinds) == len(value):
            return tuple(
                _build(k, v, f"{where}[{i}]")
                for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        if -LARGEST <= value <= LARGEST:  # neither NaN nor infinite
            return float(value)
        raise UsageError(f"setting {where} is {_shown(value)}: must be a finite number")
    elif hint is int and type(value) is int:
        if abs(value) <= LARGEST:
            return value
        raise UsageError(f"setting {where} is {_shown(value)}: must be at most {LARGEST}")
    elif isinstance(hint, type) and type(value) is hint:
        return value
    named = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise UsageError(f"setting {where} is {_shown(value)}: must be {named}")


def _shown(value: object, *, quote: bool = True) -> str:
    """A value of a file for a message: one line, of bounded length."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return "a number of more than 64 bits"
    text = value if isinstance(value, str) and not quote else reprlib.repr(value)
    return printable(text[:100])


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The leaves in which two nested values differ, one line each: `optim.rate: 0.1 -> 0.2`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        lines = []
        for name in sorted({*ours, *theirs}):
            path = f"{where}.{name}" if where else name
            lines += differences(ours.get(name), theirs.get(name), path)
        return lines
    return [] if ours == theirs else [f"{where}: {ours!r} -> {theirs!r}"]
