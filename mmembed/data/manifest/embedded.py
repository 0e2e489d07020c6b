"""The manifest row of an embedded clip, as the JSON of its record holds it.

    {"speaker": null, "dialogue": "mosi-video-7", "turn": 3, ..., "streams": ["audio"], ...}

All fields of `Utterance` stand there by their names, but for two: the key is the record's, and
`streams` are those that were embedded. Records of older versions hold some of them; what they lack
is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from mmembed.data.manifest.jsonl import from_row, to_row
from mmembed.data.manifest.utterance import Utterance

ROW: Final = tuple(
    field.name for field in fields(Utterance) if field.name not in ("key", "streams")
)
"""Names of the fields that a record repeats."""


def row_of(utterance: Utterance) -> dict[str, object]:
    """All of `ROW` as plain JSON values; `labels` is null where there is none."""
    written = to_row(utterance)
    plain = {name: getattr(utterance, name) for name in ROW if name != "labels"}
    return {**plain, "labels": written.get("labels")}


def utterance_of(
    key: str, described: Mapping[str, Any], meta: Mapping[str, Any] | None = None
) -> Utterance:
    """The inverse of `row_of`, as far as a record tells.

    Args:
        key: of the record.
        described: its JSON.
        meta: what the index holds of it: where the JSON does not name split or speaker.

    Raises:
        ValueError: one line saying which field is wrong and what is allowed.
    """
    known = {name: value for name, value in (meta or {}).items() if name in ("split", "speaker")}
    known |= {name: described[name] for name in ROW if name in described}
    held = {name: value for name, value in known.items() if value is not None}
    return from_row({"key": key, **held})
