"""What a user may name to be looked at: manifests and folders of shards, damaged ones too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from mmembed.data.manifest.jsonl import SUFFIXES as MANIFEST_SUFFIXES
from mmembed.data.shards.metadata import MANIFEST, parse_manifest
from mmembed.errors import CorruptError, UsageError

ROWS: Final = "manifest.jsonl"  # beside the folder of shards that was made of it
SHARDS: Final = "shards"
FAILED: Final = "failed.jsonl"  # what was left out of the shards, each with a reason

Json: TypeAlias = Mapping[str, Any]
Progress: TypeAlias = Callable[[int, int], None]
"""Called with how many are done, and of how many."""


@dataclass(frozen=True)
class Location:
    """One manifest, or one folder of shards.

    Attributes:
        path: the file, or the folder.
        manifest: the one that the shards were made of, where it lies beside them.
    """

    path: Path
    manifest: Path | None = None

    @property
    def is_manifest(self) -> bool:
        return self.path.suffix.lower() in MANIFEST_SUFFIXES and self.path.is_file()

    @property
    def sidecars(self) -> list[Path]:
        """The indices of its shards, in order."""
        return sorted(self.path.glob("shard-*.json"))

    @property
    def metadata(self) -> Json:
        """What `manifest.json` says of all shards, {} where it is missing or no JSON object."""
        path = self.path / MANIFEST
        try:
            return parse_manifest(str(path), path.read_bytes())
        except (OSError, CorruptError):
            return {}


def find_locations(path: Path) -> list[Location]:
    """What `path` names: a manifest, a folder of shards, or a folder that holds some of those.

    Raises:
        UsageError: it is nothing of the kind.
    """
    hint = f"name a manifest ({', '.join(MANIFEST_SUFFIXES)}), a prepared folder or embeddings"
    if path.is_file() and path.suffix.lower() in MANIFEST_SUFFIXES:
        return [Location(path)]
    if not path.is_dir():
        what = "neither a manifest nor a folder" if path.exists() else "no such file or folder"
        raise UsageError(f"{path}: {what}; {hint}")
    if _holds_shards(path):
        return [_shards(path)]
    found = [_shards(inner) for inner in sorted(path.iterdir()) if _holds_shards(inner)]
    if not found and (path / ROWS).is_file():
        return [Location(path / ROWS)]
    if not found:
        raise UsageError(f"{path}: holds no shards; {hint}")
    return found


def _holds_shards(folder: Path) -> bool:
    patterns = ("shard-*.json", "shard-*.tar", ".shard-*.tmp")
    return folder.is_dir() and any(any(folder.glob(pattern)) for pattern in patterns)


def _shards(folder: Path) -> Location:
    rows = folder.parent / ROWS
    return Location(folder, rows if folder.name == SHARDS and rows.is_file() else None)
