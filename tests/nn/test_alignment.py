"""Steps on the frame grid, by hand-worked numbers."""

from __future__ import annotations

import torch

from mmembed.batch import Packed
from mmembed.nn.alignment import spread_tokens, to_frames


def steps(*items: list[float]) -> Packed:
    return Packed.concatenate([torch.tensor(item).float()[:, None] for item in items])


def test_a_frame_is_the_mean_of_its_steps() -> None:
    x = steps([1, 3, 5, 7], [10, 20])
    found = to_frames(x, torch.tensor([2, 1]), 2)
    assert found[:, 0].tolist() == [2, 6, 15]


def test_too_few_steps_repeat_the_last_and_too_many_are_left_out() -> None:
    x = steps([1, 3, 5], [4, 6, 100, 100])
    found = to_frames(x, torch.tensor([2, 1]), 2)
    assert found[:, 0].tolist() == [2, 5, 5]
    assert to_frames(steps([1, 2]), torch.tensor([3]), 1)[:, 0].tolist() == [1, 2, 2]


def test_tokens_share_the_frames_of_their_clip() -> None:
    x = steps([1, 2], [7, 8, 9])
    found = spread_tokens(x, torch.tensor([4, 2]))
    assert found[:, 0].tolist() == [1, 1, 2, 2, 7, 9]  # middles at .75 and 2.25 of three tokens
