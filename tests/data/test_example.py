"""What an example says of itself, in a record and back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from helpers.prepared import example

from mmembed.data.example import Example, ExampleInfo, batches


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


def lasting(number: int, frames: int) -> Example:
    return example(number, audio=np.zeros(640 * frames, np.int16), video=None)


def test_a_batch_has_as_many_frames_as_fit() -> None:
    silent = example(2, audio=None, video=None, text="seven words are seven frames without sound")
    assert silent.length == 7 and example(0).length == 13  # 8,000 samples; 12 pictures
    clips = [*(lasting(n, frames) for n, frames in enumerate((40, 50, 20, 90, 91, 9))), silent]
    found = [[clip.length for clip in batch] for batch in batches(clips, 90)]
    assert found == [[40, 50], [20], [90], [91], [9, 7]]


def test_a_long_recording_is_alone_and_at_once() -> None:
    read = []

    def clips() -> Iterator[Example]:
        for number, frames in enumerate((10, 7_501, 10, 10)):
            read.append(number)
            yield lasting(number, frames)

    found = batches(clips(), 10_000)
    assert [len(next(found)), read] == [1, [0, 1]]
    assert [len(next(found)), read] == [1, [0, 1]]  # it does not wait for the next
    assert len(next(found)) == 2
