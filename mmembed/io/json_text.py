"""JSON from outside: whatever stands there, it is a value or one ValueError."""

from __future__ import annotations

import json
import reprlib
from typing import Any, Final

_SHORT: Final = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60


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


def check_text(name: str, text: str) -> None:
    """Refuse, with a ValueError, what no UTF-8 file or column can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character (a surrogate): {shown(text)}") from None


def as_text(name: str) -> str:
    """The name of a file as text: each byte that is not UTF-8 as %XX."""
    if name.isascii():
        return name
    return "".join(f"%{ord(c) & 255:02X}" if "\udc80" <= c <= "\udcff" else c for c in name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"names {shown(twice)} twice")
    return found
