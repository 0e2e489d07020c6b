"""JSON that any reader takes: null stands for a number that is not finite.

Python writes NaN and Infinity, which are no JSON; browsers, R, jq and others refuse such a file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


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
        return {name: without_nan(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(held) for held in value]
    return value
