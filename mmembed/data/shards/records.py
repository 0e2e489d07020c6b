"""From features to a shard's record and back."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmembed.data.example import Example, ExampleInfo
from mmembed.data.manifest.utterance import Utterance, from_row, to_row
from mmembed.errors import CorruptError
from mmembed.features.video import SMALL_GREY
from mmembed.io.json import shown

FEATURES: Final = "features."  # of the name of a member
SOUND: Final = "audio.flac"
CROPS: Final = "video.npy"  # of 64 x 64 grey
PACKED_CROPS: Final = "video.diff.zst"  # of all other forms

OLDER: Final = (
    "prepared by an older version, which stored log-mel instead of sound; prepare the corpus again"
)

Members = Mapping[str, "NDArray[Any] | Mapping[str, Any]"]
Value = TypeVar("Value")


def is_older(members: Container[str]) -> bool:
    """Whether a record with members of these names is what `OLDER` says."""
    return "audio.npy" in members


def crops_of(members: Mapping[str, Value]) -> Value | None:
    """What stands under the name that face crops have in a record."""
    return members.get(CROPS, members.get(PACKED_CROPS))


def to_record(example: Example) -> tuple[str, Members, Mapping[str, Any]]:
    """(key, members, meta) for a shard; meta is what planning needs without reading members."""
    members: dict[str, NDArray[Any] | Mapping[str, Any]] = {
        "json": {
            "utterance": to_row(example.utterance),
            "text": example.text,
            "notes": example.info.to_json(),
        }
    }
    small = example.video is None or example.video.shape[1:] == SMALL_GREY.shape
    crops = CROPS if small else PACKED_CROPS
    lengths = {"audio": 0, "video": 0, "text": len(example.text or "")}
    for stream, name, values in (("audio", SOUND, example.audio), ("video", crops, example.video)):
        if values is not None:
            members[name], lengths[stream] = values, len(values)
    members |= {f"{FEATURES}{name}.npy": array for name, array in example.features.items()}
    utterance = example.utterance
    meta = {
        "lengths": lengths,
        "features": {name: list(values.shape) for name, values in example.features.items()},
        "transcript": utterance.transcript,
        "speaker": utterance.speaker,
        "split": utterance.split,
    }
    return example.key, members, meta


def read_description(
    described: Mapping[str, Any],
) -> tuple[Utterance, str | None, ExampleInfo]:
    """Utterance, text and info of a record's JSON, as `to_record` writes it.

    Raises:
        ValueError: one line saying what is not as it writes it.
    """
    text = described.get("text")
    if not isinstance(text, str | None):
        raise ValueError(f"text must be a string, found {shown(text)}")
    info = ExampleInfo.from_json(described.get("notes"))
    return from_row(described.get("utterance")), text, info


def from_record(key: str, members: Members) -> Example:
    """The inverse of `to_record`.

    Raises:
        CorruptError: the record is of another kind, or of an older version.
    """
    described = members.get("json")
    if not isinstance(described, Mapping) or "utterance" not in described:
        raise CorruptError(f"{key}: not a record of prepared features; prepare the corpus again")
    if is_older(members):
        raise CorruptError(f"{key}: {OLDER}")
    arrays = {name: value for name, value in members.items() if isinstance(value, np.ndarray)}
    try:
        utterance, text, info = read_description(described)
    except ValueError as error:
        raise CorruptError(f"{key}: not a record of prepared features ({error})") from None
    return Example(
        utterance,
        audio=arrays.get(SOUND),
        video=crops_of(arrays),
        text=text,
        features={
            name.removeprefix(FEATURES).removesuffix(".npy"): values
            for name, values in arrays.items()
            if name.startswith(FEATURES)
        },
        info=info,
    )
