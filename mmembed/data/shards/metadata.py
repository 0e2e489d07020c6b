"""`manifest.json` of a folder of shards: what all of them have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from mmembed.data.shards.sidecar import is_count, parse_object
from mmembed.errors import CorruptError, UsageError
from mmembed.features.video import CropForm

MANIFEST: Final = "manifest.json"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def crop_form(metadata: Mapping[str, Any]) -> CropForm:
    """Of the face crops of a folder, or of a shard by its provenance; older ones do not tell.

    Raises:
        CorruptError: there are no such crops.
    """
    try:
        return CropForm(**metadata.get("crops", {}))
    except (TypeError, UsageError):
        raise CorruptError(f"crops is {repr(metadata['crops'])[:80]}") from None


_RENAMED_LAYERS: Final = {"video on clock": "video aligned", "text on clock": "text aligned"}
"""Names of layers in folders that mmembed 0.1 wrote -> their names now."""

_FIELDS: Final[Mapping[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("streams", "layers", "granularity", "inputs"), _is_texts),
    **dict.fromkeys(("encoder", "encoder_sha256", "inputs_sha256", "plan", "command"), _is_text),
    **dict.fromkeys(
        ("clips", "utterances", "records_per_shard", "width"), partial(is_count, limit=2**63)
    ),
    "frame_rate": lambda rate: type(rate) in (int, float) and 0 < rate < 1e6,  # type: ignore[operator]
}
"""What readers rely on in a manifest that has these entries."""


def parse_manifest(name: str, data: bytes) -> dict[str, Any]:
    """What `manifest.json` holds.

    Raises:
        CorruptError: it is no JSON object, or one of its entries is of another type.
    """
    manifest = parse_object(name, data)
    for entry, fits in _FIELDS.items():
        if entry in manifest and not fits(manifest[entry]):
            raise CorruptError(f"{name}: damaged: {entry} is {repr(manifest[entry])[:80]}")
    try:
        crop_form(manifest)
    except CorruptError as error:
        raise CorruptError(f"{name}: damaged: {error}") from None
    return rename_layers(manifest)


def rename_layers(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with the names that its layers have now."""
    layers = metadata.get("layers")
    if not isinstance(layers, list):
        return dict(metadata)
    return {**metadata, "layers": [_RENAMED_LAYERS.get(str(layer), layer) for layer in layers]}
