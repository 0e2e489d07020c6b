"""What a user calls an encoder: a folder, a name on the hub, or several of them by stream."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from mmembed.backbones.pretrained import load_pretrained
from mmembed.config import read_json
from mmembed.embedder import hub
from mmembed.embedder.folder import CONFIG, FILES, Saved, read_folder, side_by_side
from mmembed.errors import UsageError
from mmembed.streams import STREAMS

EncoderName: TypeAlias = str | os.PathLike[str] | Mapping[str, str] | Sequence[str]
"""See `Embedder.from_pretrained`."""


def open_encoder(name: EncoderName, revision: str | None = None) -> Saved:
    """Load an encoder; see `Embedder.from_pretrained`."""
    if isinstance(name, Mapping) or not isinstance(name, str | os.PathLike):
        names = name if isinstance(name, Mapping) else _by_stream(name)
        if isinstance(names, Mapping):
            loaded = [load_pretrained(x, s, revision=revision) for s, x in names.items()]
            return side_by_side(loaded)
        name = names
    text = os.fspath(name)
    stream, separator, rest = text.partition("=")
    if separator and stream in STREAMS and not Path(text).exists():
        return side_by_side([load_pretrained(rest, stream, revision=revision)])
    folder = Path(text)
    if folder.exists():
        if revision is not None:
            raise UsageError(f"{text}: a folder has no revisions, found {revision!r}")
        return _open_folder(folder, text, None)
    if isinstance(name, os.PathLike):
        return read_folder(folder)  # says what is missing
    if not hub.is_hub_name(text):
        raise UsageError(f"{text}: there is no such folder (a name on the hub is OWNER/NAME)")
    return _open_folder(hub.download(text, revision, (CONFIG,)), text, revision)


def _open_folder(folder: Path, name: str, revision: str | None) -> Saved:
    """A folder of ours, or one of transformers: their config.json names a type of model.

    Args:
        folder: with config.json; of a name on the hub, whatever of its files are in the cache.
        name: what the user calls it.
        revision: on the hub.
    """
    if (folder / CONFIG).is_file() and "model_type" in read_json(folder / CONFIG):
        return side_by_side([load_pretrained(name, revision=revision)])
    if not Path(name).exists():
        folder = hub.download(name, revision, FILES)
    return read_folder(folder)


def _by_stream(names: Sequence[str]) -> str | dict[str, str]:
    """Strings STREAM=NAME by stream; one string alone as it is."""
    if len(names) == 1:
        return names[0]
    found: dict[str, str] = {}
    for name in names:
        stream, _, rest = name.partition("=")
        if stream not in STREAMS or not rest:
            raise UsageError(
                f"{name}: of several encoders each is STREAM=NAME, with one of {', '.join(STREAMS)}"
            )
        if stream in found:
            raise UsageError(f"{name}: {stream} has an encoder already, {found[stream]}")
        found[stream] = rest
    if not found:
        raise UsageError("no encoder is named")
    return found
