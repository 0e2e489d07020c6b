"""What an import found and what was published: checks, as text and as OUT/integrity.json.

A check that does not hold is a warning. What makes data unusable is an error of its own, raised
where it is found.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from mmembed.data.manifest.utterance import as_text
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps, parse_json

REPORT: Final = "integrity.json"

SHOWN: Final = 3  # of the items of a check

_log: Final = logging.getLogger("mmembed.corpora")


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        what: it is, such as "segments in train".
        found: in the files.
        expected: as published; "" where there is nothing to compare with.
        ok: whether it is as it should be.
        items: all that is wrong, by name; the report shows a few.
    """

    what: str
    found: str
    expected: str = ""
    ok: bool = True
    items: tuple[str, ...] = ()


def compare(what: str, found: object, expected: object) -> Check:
    """A check that holds where both are the same; None = nothing was published."""
    if expected is None:
        return Check(what, str(found))
    return Check(what, str(found), str(expected), found == expected)


def none_of(what: str, items: Iterable[str], note: str = "") -> Check:
    """A check that holds where there are no such items; `note` says what was done with them."""
    items = tuple(items)
    found = f"{len(items)}{note and ', ' + note}" if items else "0"
    return Check(what, found, "0", not items, items)


def checksum(path: Path, published: str | None) -> Check:
    """The SHA-256 of a file against the one its authors publish."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    expected = published or "no published checksum"
    return Check(f"SHA-256 of {path.name}", found, expected, published in (None, found))


_collected: Final[ContextVar[list[Check] | None]] = ContextVar("collected", default=None)


def log_skipped(root: Path, items: Sequence[str], what: str) -> None:
    """Say on the log that a corpus is not quite as expected; nothing where `items` is empty.

    Within `collect_skipped` it becomes a check too, with the names of all items.
    """
    if not items:
        return
    _log.warning("%s: %s (%d, such as %a)", root, what, len(items), as_text(items[0]))
    if (kept := _collected.get()) is not None:
        kept.append(none_of(as_text(what), map(as_text, items)))


@contextmanager
def collect_skipped() -> Iterator[list[Check]]:
    """What `log_skipped` says within the block, as checks."""
    found: list[Check] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def write_report(out: Path, checks: Sequence[Check]) -> None:
    """Write OUT/integrity.json, whole or not at all; without checks there is none."""
    if not checks:
        (out / REPORT).unlink(missing_ok=True)
        return
    with atomic_file(out / REPORT) as file:
        rows = [asdict(check) for check in checks]
        file.write(dumps(rows, indent=1).encode() + b"\n")


def read_report(out: Path) -> list[Check]:
    """The checks of OUT/integrity.json; [] where there is none."""
    path = out / REPORT
    if not path.is_file():
        return []
    rows = parse_json(path.read_bytes())
    return [Check(**{**row, "items": tuple(row["items"])}) for row in rows]


def describe(checks: Sequence[Check]) -> str:
    """Aligned text, one line a check: ok, or warn with what was expected and a few of the items."""
    width = max((len(check.what) for check in checks), default=0)
    lines = []
    for check in checks:
        line = f"{'ok' if check.ok else 'warn':<5} {check.what:<{width}}  {check.found}"
        if not check.ok:
            line += f" (expected {check.expected})"
        elif check.expected not in ("", check.found):
            line += f" ({check.expected})"
        if check.items:
            more = ", ..." if len(check.items) > SHOWN else ""
            line += f": {', '.join(check.items[:SHOWN])}{more}"
        # Names come from files: none of them may reach a terminal as a control character.
        lines.append(line.encode("unicode_escape").decode("ascii"))
    return "\n".join(lines)
