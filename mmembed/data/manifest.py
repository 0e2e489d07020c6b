"""Manifests: one JSON object a line, one line an utterance; or the same as a Parquet table.

    {"key": "grid-s1-bbaf2n", "media": "video/s1/bbaf2n.mpg", "transcript": "bin blue at f two now"}

The fields are those of `Utterance`; `labels` is an object of its own. What a row does not name has
its default. `media` is absolute or relative to the folder of the manifest. A name that ends in
`.parquet` means a table, see `mmembed.data.parquet`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from mmembed.data.atomic import atomic_file
from mmembed.data.example import EMOTIONS, Labels, Utterance, check_span
from mmembed.data.parquet import read_rows, write_rows
from mmembed.errors import DataError

TABLE: Final = ".parquet"
SUFFIXES: Final = (".jsonl", TABLE)

_FIELDS: Final = tuple(field.name for field in fields(Utterance))
_LABELS: Final = tuple(field.name for field in fields(Labels))
_NUMBERS: Final = ("start", "end", "sentiment", "sentiment_limit")
_NAMES: Final = ("streams", "present")  # lists of strings


def read_manifest(path: Path) -> list[Utterance]:
    """The rows of a manifest, in its order.

    Raises:
        DataError: naming the file, and the line or row where there is one to name.
    """
    if path.suffix == TABLE:
        rows: Iterable[tuple[int, Utterance]] = enumerate(read_rows(path), start=1)
        place, unit = f"{path}: row ", "row"
    else:
        rows, place, unit = _read_lines(path), f"{path}:", "line"
    first: dict[str, int] = {}
    utterances = []
    for number, utterance in rows:
        if utterance.key in first:
            raise DataError(
                f"{place}{number}",
                "duplicate",
                f"key {utterance.key} stands on {unit} {first[utterance.key]} too; "
                "every utterance needs its own",
            )
        first[utterance.key] = number
        utterances.append(utterance)
    if not utterances:
        raise DataError(str(path), "empty", "the manifest holds no utterance")
    return utterances


def _read_lines(path: Path) -> Iterator[tuple[int, Utterance]]:
    """Line numbers and what stands there; empty lines hold nothing."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise DataError(str(path), "missing", "no such manifest") from None
    except UnicodeDecodeError:
        raise DataError(str(path), "manifest", "a manifest is UTF-8 text, this is not") from None
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield number, from_row(json.loads(line))
            except ValueError as error:
                raise DataError(f"{path}:{number}", "manifest", str(error)) from None


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write a manifest whole or not at all; the same utterances give the same bytes.

    Raises:
        DataError: two utterances share a key.
    """
    with atomic_file(path) as file:
        checked = _without_duplicates(path, utterances)
        if path.suffix == TABLE:
            write_rows(file, list(checked))
            return
        for utterance in checked:
            row = json.dumps(to_row(utterance), ensure_ascii=False, allow_nan=False)
            file.write(row.encode() + b"\n")


def _without_duplicates(path: Path, utterances: Iterable[Utterance]) -> Iterator[Utterance]:
    seen: set[str] = set()
    for number, utterance in enumerate(utterances, start=1):
        if utterance.key in seen:
            raise DataError(f"{path}:{number}", "duplicate", f"a second {utterance.key}")
        seen.add(utterance.key)
        yield utterance


def to_row(utterance: Utterance) -> dict[str, object]:
    """An utterance as plain JSON values; fields that hold their default are left out."""
    row = _changed(utterance)
    labels = _changed(utterance.labels)
    if "labels" in row:
        row["labels"] = _jsonable(labels)
    return _jsonable(row)


def from_row(row: object) -> Utterance:
    """The inverse of `to_row`.

    Raises:
        ValueError: one line saying which field is wrong and what is allowed.
    """
    values = _checked(row, _FIELDS, "a manifest row")
    if "key" not in values:
        raise ValueError("a manifest row needs a key")
    labels = _checked(values.pop("labels", {}), _LABELS, "labels")
    if labels.get("emotions") is not None:
        emotions = labels["emotions"]
        if not isinstance(emotions, list) or not all(map(_is_number, emotions)):
            raise ValueError(f"emotions must be a list of {len(EMOTIONS)} numbers")
        labels["emotions"] = tuple(map(float, emotions))
    scores = labels.get("scores", {})
    if not isinstance(scores, Mapping) or not all(map(_is_number, scores.values())):
        raise ValueError(f"scores must be an object of numbers, found {scores!r}")
    check_span(values.get("start", 0.0), values.get("end"))
    values.setdefault("media", None)
    return Utterance(**values, labels=Labels(**labels))


def _jsonable(values: dict[str, object]) -> dict[str, object]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


def _changed(item: Utterance | Labels) -> dict[str, object]:
    plain = Utterance(key="-", media=None) if isinstance(item, Utterance) else Labels()
    return {
        field.name: getattr(item, field.name)
        for field in fields(item)
        if getattr(item, field.name) != getattr(plain, field.name) or field.name == "key"
    }


def _checked(row: object, allowed: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ValueError(f"{what} must be a JSON object, found {type(row).__name__}")
    unknown = [name for name in row if name not in allowed]
    if unknown:
        raise ValueError(f"unknown field {', '.join(unknown)}; allowed are {', '.join(allowed)}")
    for name, value in row.items():
        if value is None or name in ("labels", "emotions", "scores"):
            continue
        if name in _NUMBERS:
            if not _is_number(value):
                raise ValueError(f"{name} must be a number, found {value!r}")
        elif name in _NAMES:
            if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
                raise ValueError(f"{name} must be a list of strings, found {value!r}")
        elif name == "turn":
            if not isinstance(value, int) or isinstance(value, bool):
                raise ValueError(f"turn must be a whole number, found {value!r}")
        elif not isinstance(value, str):
            raise ValueError(f"{name} must be a string, found {value!r}")
    return {name: _converted(name, value) for name, value in row.items()}


def _converted(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _NUMBERS:
        return float(value)
    return tuple(value) if name in _NAMES else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
