"""The record of a run: run.json says what it is, metrics.jsonl what happened."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from mmembed.config import differences, read_json
from mmembed.errors import UsageError
from mmembed.io.atomic import errors_of
from mmembed.io.json import dumps, write_json, write_lines
from mmembed.io.locks import file_lock, lock_folder

log = logging.getLogger(__name__)


def open_run_folder(
    out: Path, config: Mapping[str, Any], mutable: Collection[str] = (), part: str = ""
) -> None:
    """Make `out` the folder of this configuration, and of this process until it ends.

    Args:
        out: folder of the run.
        config: all settings, nested.
        mutable: those that may change from one start to the next, such as "loop.workers".
        part: a name under which this process shares the folder with those of other names.

    Raises:
        UsageError: it already belongs to another one; names the fields that differ. Or another
            program is at work there.
    """
    lock_folder(out, part)
    with file_lock(out / ".claim") if part else nullcontext():  # parts may start at one moment
        if not is_run_folder(out, config, mutable):
            write_json(out / "run.json", json.loads(dumps(config)))


def is_run_folder(out: Path, config: Mapping[str, Any], mutable: Collection[str] = ()) -> bool:
    """Whether `out` belongs to this configuration already; nothing is written.

    Raises:
        UsageError: it belongs to another one; names the fields that differ.
    """
    path = out / "run.json"
    if not path.exists():
        return False
    lines = differences(read_json(path), json.loads(dumps(config)))
    if changed := [line for line in lines if line.partition(":")[0] not in mutable]:
        raise UsageError(
            f"{out} holds a run with other settings ({'; '.join(changed[:8])}): "
            "choose another --out, or remove the folder to start again"
        )
    return True


class MetricsLog:
    """metrics.jsonl, cut back to the step that training goes on from.

    What a crash left of a line, or a disk, is dropped, and how many lines were is said.

    Attributes:
        path: the file.
        seconds: that training had taken up to that step.
    """

    def __init__(self, path: Path, steps_done: int) -> None:
        self.path = path
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        read = [_parse_line(line) for line in lines if line]
        if lost := sum(line is None for line in read):
            log.warning(
                "%s: %d line(s) of it could not be read and were dropped, as happens when a run "
                "is killed while it writes",
                path,
                lost,
            )
        # Of the last step too what training wrote; its scores come again.
        kept = [
            line
            for line in read
            if line and line["step"] < steps_done + (line.get("split") == "train")
        ]
        seconds = [line.get("seconds") for line in kept]
        self.seconds = max((s for s in seconds if isinstance(s, (int, float))), default=0.0)
        write_lines(path, kept)

    def write(self, **values: object) -> None:
        """Append one line; null stands for what is not finite, as JSON knows no other way.

        Raises:
            OSError: there is no room for it.
        """
        with errors_of(self.path), self.path.open("a") as file:
            file.write(dumps(values) + "\n")


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A line with a "step"; None where there is none to be read."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and type(value.get("step")) is int else None
