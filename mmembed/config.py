"""Frozen dataclasses to JSON and back, strict about names and types; units as types."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mmembed.errors import UsageError

Hz = float
Seconds = float

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A dataclass as nested builtins, tuples as lists, ready for JSON."""
    result: dict[str, Any] = _plain(dataclasses.asdict(config))
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def from_dict(kind: type[T], data: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `kind` from nested builtins.

    Raises:
        UsageError: a name that `kind` does not have, or a value of another type; says which.
    """
    hints = typing.get_type_hints(kind)
    fields = {f.name for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - fields)
    if unknown:
        raise UsageError(
            f"unknown setting {where}{unknown[0]}: {kind.__name__} has {', '.join(sorted(fields))}"
        )
    return kind(**{name: _build(hints[name], data[name], f"{where}{name}") for name in data})


def _build(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(typing.cast(type[Any], hint), value, f"{where}.")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _build(next(a for a in args if a is not type(None)), value, where)
    if origin is typing.Literal:
        if value in args:
            return value
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = args[:1] * len(value) if args[-1:] == (...,) else args
        if len(kinds) == len(value):
            return tuple(
                _build(k, v, f"{where}[{i}]")
                for i, (k, v) in enumerate(zip(kinds, value, strict=True))
            )
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif isinstance(hint, type) and type(value) is hint:
        return value
    raise UsageError(f"setting {where} is {value!r}: must be {hint}")


def differences(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The leaves in which two nested values differ, one line each: `optim.rate: 0.1 -> 0.2`."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        lines = []
        for name in sorted({*ours, *theirs}):
            path = f"{where}.{name}" if where else name
            lines += differences(ours.get(name), theirs.get(name), path)
        return lines
    return [] if ours == theirs else [f"{where}: {ours!r} -> {theirs!r}"]
