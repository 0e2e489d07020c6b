"""JSON that any reader takes: null stands for a number that is not finite.

Python writes NaN and Infinity, which are no JSON; browsers, R, jq and others refuse such a file.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mmembed.io.atomic import atomic_file


def dumps(value: object, **settings: Any) -> str:
    """As `json.dumps`.

    Args:
        value: of mappings, lists, tuples, strings, numbers, booleans and None.
        settings: of `json.dumps`, such as `indent`.
    """
    return json.dumps(without_nan(value), allow_nan=False, **settings)


def without_nan(value: object) -> object:
    """The same value with None for each NaN and each infinity in it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return value


_SHORT: Final = reprlib.Repr()


def parse_json(text: str | bytes) -> Any:
    """A JSON value; as `json.loads`, but an object may not name anything twice.

    Args:
        text: bytes are UTF-8.

    Raises:
        ValueError: it is no JSON, nested too deeply, or a number of thousands of digits.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        return json.loads(decoded, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 text ({error.reason} at byte {error.start})") from None


def shown(value: object) -> str:
    """A value in a message: never more than a part of a line, however large or deep it is."""
    try:
        return "null" if value is None else _SHORT.repr(value)
    except (ValueError, RecursionError):
        return type(value).__name__


def finite_number(name: str, value: object) -> float:
    """A finite number from JSON; a ValueError where it is something else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        with suppress(OverflowError):  # of whole numbers of hundreds of digits
            if math.isfinite(value):
                return float(value)
    raise ValueError(f"{name} must be a number, found {shown(value)}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"names {shown(twice)} twice")
    return values


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all; null stands for a number that is not finite."""
    with atomic_file(path) as file:
        file.write((dumps(value, indent=1) + "\n").encode())


def write_lines(path: Path, values: Iterable[object]) -> None:
    """Write one JSON value a line, whole or not at all."""
    with atomic_file(path) as file:
        file.write("".join(dumps(value, sort_keys=True) + "\n" for value in values).encode())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, none where there is no file.

    Other lines are passed over: a run that was killed may have left half a line at the end.
    """
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                try:
                    value = parse_json(line)
                except ValueError:
                    continue
                if isinstance(value, dict):
                    yield value
