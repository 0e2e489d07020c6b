"""The record of a run: run.json says what it is, metrics.jsonl what happened."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmembed.config import differences
from mmembed.data.atomic import atomic_file, hold_folder, only_one
from mmembed.errors import CorruptError, UsageError


def write_json(path: Path, value: object) -> None:
    """Write JSON whole or not at all."""
    with atomic_file(path) as file:
        file.write((json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote of a mapping.

    Raises:
        CorruptError: it holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptError(f"{path}: not valid JSON ({error}); write it again") from error
    if not isinstance(value, dict):
        raise CorruptError(f"{path}: holds no JSON object; write it again")
    return value


def write_lines(path: Path, values: Iterable[object]) -> None:
    """Write one JSON value a line, whole or not at all."""
    with atomic_file(path) as file:
        file.write("".join(json.dumps(value, sort_keys=True) + "\n" for value in values).encode())


def claim_folder(
    out: Path, config: Mapping[str, Any], free: Collection[str] = (), part: str = ""
) -> None:
    """Make `out` the folder of this configuration, and of this process until it ends.

    Args:
        out: folder of the run.
        config: all settings, nested.
        free: those that may change from one start to the next, such as "loop.workers".
        part: a name under which this process shares the folder with those of other names.

    Raises:
        UsageError: it already belongs to another one; names the fields that differ. Or another
            program is at work there.
    """
    hold_folder(out, part)
    with only_one(out / ".claim") if part else nullcontext():  # parts may start at one moment
        if not is_claimed(out, config, free):
            write_json(out / "run.json", json.loads(json.dumps(config)))


def is_claimed(out: Path, config: Mapping[str, Any], free: Collection[str] = ()) -> bool:
    """Whether `out` belongs to this configuration already; nothing is written.

    Raises:
        UsageError: it belongs to another one; names the fields that differ.
    """
    path = out / "run.json"
    plain = json.loads(json.dumps(config))
    if path.exists():
        changed = [
            line
            for line in differences(json.loads(path.read_text()), plain)
            if line.partition(":")[0] not in free
        ]
        if changed:
            raise UsageError(
                f"{out} holds a run with other settings ({'; '.join(changed[:8])}): "
                "choose another --out, or remove the folder to start again"
            )
        return True
    return False


class MetricsLog:
    """metrics.jsonl, cut back to the step that training goes on from."""

    def __init__(self, path: Path, steps_done: int) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        kept = [line for line in lines if json.loads(line)["step"] <= steps_done]
        self.seconds = max([json.loads(line).get("seconds", 0.0) for line in kept], default=0.0)
        write_lines(path, map(json.loads, kept))

    def write(self, **values: object) -> None:
        """Append one line."""
        with self.path.open("a") as file:
            file.write(json.dumps(values) + "\n")
