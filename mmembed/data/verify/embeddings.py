"""Whether embeddings are what their folder says: of one encoder, of its layers and streams."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from mmembed.data.locations import Json
from mmembed.data.manifest.utterance import utterance_of
from mmembed.data.shards.sidecar import parse_object
from mmembed.data.verify.defect import Defect, corrupt
from mmembed.errors import CorruptError

ORIGIN: Final = (  # of embeddings
    "encoder_sha256", "layers", "width", "frame_rate", "streams", "granularity", "dtype",
    "computed_in", "inputs_sha256", "recogniser_sha256",
)  # fmt: skip
MEMBERS: Final[dict[str, tuple[str, ...]]] = {
    "utterance": ("pooled.npy", "layers.npy"), "frame": ("frames.npy",), "word": ("words.npy",),
    "steps": ("steps.npy",),
}  # fmt: skip
"""Granularity of embeddings -> the members that a record of it has."""
COPIES: Final = "embeddings.json"
"""Size and SHA-256 of other forms of the shards, see `mmembed.embeddings.formats`."""
_COPY: Final = re.compile(r"embeddings\.[a-z.]+")
OUTLYING: Final = 10.0  # times longer or shorter than the median


def read_copies(folder: Path) -> dict[str, Any] | None:
    """What `embeddings.json` says; None where there is none.

    Returns:
        "shards": digest of the shards; "formats": names; "files": name -> {"bytes", "sha256"}.

    Raises:
        CorruptError: it says something else.
    """
    path = folder / COPIES
    try:
        about = parse_object(str(path), path.read_bytes())
    except FileNotFoundError:
        return None
    files, formats = about.get("files"), about.get("formats")
    if not isinstance(files, dict) or not isinstance(formats, list):
        raise CorruptError(f"{path}: damaged: files and formats are not both there")
    if not all(map(_COPY.fullmatch, files)) or not all(isinstance(name, str) for name in formats):
        raise CorruptError(f"{path}: damaged: names others than those of copies")
    for copy in files.values():
        if not isinstance(copy, dict) or not copy.keys() >= {"bytes", "sha256"}:
            raise CorruptError(f"{path}: damaged: a file without bytes and sha256")
    return about


def check_copies(folder: Path) -> Iterator[Defect]:
    """Other forms of the shards must be what was written."""
    try:
        about = read_copies(folder)
    except CorruptError:
        yield corrupt(folder / COPIES, "copy", "damaged; delete it and extract again")
        return
    for name, copy in about["files"].items() if about else ():
        path = folder / name
        try:
            with path.open("rb") as file:
                whole = path.stat().st_size == copy["bytes"]
                digest = copy["sha256"]
                whole = whole and hashlib.file_digest(file, "sha256").hexdigest() == digest
        except FileNotFoundError:
            whole = False
        if not whole:
            yield corrupt(path, "copy", f"not as written; delete {COPIES} and extract again")


def check_origin(tar: Path, provenance: Json, metadata: Json) -> Iterator[Defect]:
    """A shard of embeddings must be of the encoder that the folder names."""
    for name in ORIGIN:
        here, there = provenance.get(name), metadata.get(name)
        if here is not None and there is not None and here != there:
            found = f"its {name} is {here!r:.40}, of the folder {there!r:.40}"
            yield Defect(str(tar), "origin", f"{found}; delete it and make it again")


def is_embedding(members: Json) -> bool:
    """Rather than prepared features, whose JSON has an "utterance"."""
    vectors = {name for names in MEMBERS.values() for name in names}
    described = members.get("json")
    return bool(vectors & set(members)) and not (
        isinstance(described, dict) and "utterance" in described
    )


def check_embedding(key: str, members: Json, metadata: Json) -> Iterator[Defect]:
    """What a record holds must be what the folder says of all."""
    described, layers = members.get("json"), members.get("layers.npy")
    promised = metadata.get("granularity")
    for granularity, parts in MEMBERS.items():
        absent = [name for name in parts if name not in members]
        if isinstance(promised, list) and granularity in promised and absent:
            yield Defect(key, "origin", f"lacks {', '.join(absent)}, of granularity {granularity}")
    names, streams = metadata.get("layers"), metadata.get("streams")
    if isinstance(names, list) and isinstance(layers, np.ndarray) and len(layers) != len(names):
        yield Defect(key, "origin", f"has {len(layers)} layers, the folder names {len(names)}")
    if not isinstance(described, dict):
        return
    used = described.get("streams")
    if isinstance(streams, list) and isinstance(used, list) and any(s not in streams for s in used):
        found = f"is of {'+'.join(map(str, used))}, the folder of {'+'.join(map(str, streams))}"
        yield Defect(key, "origin", found)
    try:
        utterance_of(key, described)
    except ValueError as error:
        yield Defect(key, "record", f"its JSON holds no row of a manifest: {error}")
    if "words.npy" in members:
        words, there = described.get("words"), len(members["words.npy"])
        if not isinstance(words, list) or len(words) != there:
            yield Defect(key, "record", f"its JSON does not list the {there} words of words.npy")


def index_of(members: Json) -> dict[str, object]:
    """What the index says of an embedding."""
    expected = {name: members["json"].get(name) for name in ("split", "speaker")}
    for name in ("frames", "words"):
        if f"{name}.npy" in members:
            expected[name] = len(members[f"{name}.npy"])
    return expected


def outliers(norms: dict[str, float]) -> Iterator[Defect]:
    """Vectors far longer or shorter than is usual here: whole, but look at their clips."""
    known = {key: norm for key, norm in norms.items() if np.isfinite(norm)}  # others are listed
    usual = float(np.median(list(known.values()))) if known else 0.0
    for key, norm in known.items():
        if not usual / OUTLYING <= norm <= usual * OUTLYING:
            found = f"pooled has the length {norm:.3g}, of the median clip {usual:.3g}"
            yield Defect(key, "length", found, exit_code=0)
