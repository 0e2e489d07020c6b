"""What an example says of itself, in a record and back."""

from __future__ import annotations

import pytest

from mmembed.data.example import ExampleInfo


@pytest.mark.parametrize(
    ("info", "notes"),
    [
        (ExampleInfo(), {}),
        (ExampleInfo(2.5, "haar"), {"seconds": 2.5, "face": "haar"}),
        (ExampleInfo(0.0, None, ("a", "b")), {"seconds": 0.0, "media": ["a", "b"]}),
    ],
)
def test_info_is_the_notes_of_a_record(info: ExampleInfo, notes: dict[str, object]) -> None:
    assert info.to_json() == notes and list(info.to_json()) == list(notes)
    assert ExampleInfo.from_json({**notes, "of an older version": 1}) == info


@pytest.mark.parametrize(
    "notes",
    [None, [], {"seconds": "2"}, {"seconds": True}, {"seconds": 10**400}, {"face": 1},
     {"media": "ab"}, {"media": [1]}, {"seconds": float("nan")}],
)  # fmt: skip
def test_other_notes_are_refused(notes: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        ExampleInfo.from_json(notes)
