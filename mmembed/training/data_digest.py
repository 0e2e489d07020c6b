"""The data of a run are those it began with: shards replaced under their name are noticed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from mmembed.config import read_json
from mmembed.data.shards.layout import ShardSet
from mmembed.errors import MmembedError, UsageError
from mmembed.io.json import write_json
from mmembed.io.remote import as_url

FILE: Final = "data.json"  # setting, or setting/FOLDER -> SHA-256 of all shards there


def check_data(out: Path, config: Mapping[str, Any]) -> None:
    """Keep in OUT/data.json what the shards that the settings name hold.

    Args:
        out: folder of a run, opened already.
        config: all its settings, nested.

    Raises:
        UsageError: the run began with other shards; names the settings.
    """
    if not (out / FILE).exists():
        write_json(out / FILE, dict(_digests(config)))
    elif changed := changed_data(out, config):
        raise UsageError(
            f"{out} holds a run on other data ({', '.join(changed)}: shards were replaced since): "
            "choose another --out, or remove the folder to start again"
        )


def changed_data(out: Path, config: Mapping[str, Any]) -> list[str]:
    """The settings whose shards are others than OUT/data.json says."""
    recorded = read_json(out / FILE)
    return [name for name, digest in _digests(config) if recorded.get(name) != digest]


def _digests(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _digests(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _digests(inner, f"{name}[{place}]")
    elif isinstance(value, str | Path) and str(value):
        for folder in _folders(str(value)):
            try:
                digest = ShardSet(folder).digest
            except MmembedError:
                continue  # opening it reports what is wrong
            below = "" if str(folder) == str(value) else f"/{Path(folder).name}"
            yield name + below, digest


def _folders(value: str) -> list[Path | str]:
    """The folders of shards that a setting names: itself, or those right below it."""
    here = Path(value)
    try:
        if as_url(value) is not None:
            return [value]
        if not here.is_dir():
            return []
    except (MmembedError, OSError, ValueError):  # a text of another meaning
        return []
    found = [here, *sorted(path for path in here.iterdir() if path.is_dir())]
    shards: list[Path | str] = [path for path in found if any(path.glob("shard-*.json"))]
    return shards[:1] if shards and shards[0] == here else shards
