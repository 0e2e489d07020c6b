"""What tests of extract.py share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmembed.data.shards.layout import ShardSet

PROGRAM = Path(__file__).parents[2] / "export" / "extract.py"
ALL = ["--granularity", "utterance", "frame", "word"]
WORDS = ["red on blue", "lay white at nine"]

Extract = Callable[..., tuple[int, str]]


def contents(folder: Path) -> dict[str, bytes]:
    """All files that are no locks."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if not path.name.startswith(".") or path.name.endswith(".tmp")
    }


def keys(folder: Path) -> list[str]:
    return list(ShardSet(folder).keys)
