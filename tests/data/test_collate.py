"""R22: no batch holds a transcript that CTC cannot align."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from helpers.support import random_item, small_method
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mmembed.batch import Padded
from mmembed.data.augment import Augmentation, augment
from mmembed.data.collate import collate
from mmembed.data.item import EMPTY, Item
from mmembed.method import Method

items = st.lists(
    st.tuples(
        st.integers(0, 40),  # frames of sound, 100 Hz
        st.integers(0, 12),  # frames of the picture, 25 Hz
        st.lists(st.integers(3, 5), max_size=12),
    ).filter(lambda lengths: lengths[0] + lengths[1] > 0),
    min_size=1,
    max_size=4,
)


def made(number: int, sound: int, picture: int, tokens: list[int]) -> Item:
    inputs = {
        **EMPTY,
        "audio": torch.randn(sound, 80, generator=torch.Generator().manual_seed(number)),
        "video": torch.zeros(picture, 64, 64, dtype=torch.uint8),
    }
    item = random_item((), number)
    return replace(item, inputs=inputs, transcript=torch.tensor(tokens, dtype=torch.int64))


def alignable(tokens: list[int], frames: int) -> bool:
    """Whether PyTorch's CTC finds any path: an infinite loss means that there is none."""
    log_probs = torch.zeros(frames, 1, 6).log_softmax(2)
    loss = functional.ctc_loss(
        log_probs, torch.tensor([tokens]), torch.tensor([frames]), torch.tensor([len(tokens)])
    )
    return bool(loss.isfinite())


@cache
def method() -> Method:
    return small_method().eval()


@given(items, st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_what_ctc_cannot_align_is_left_out_and_nothing_else(
    lengths: list[tuple[int, int, list[int]]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    plain = Augmentation(keep_streams=0.5)
    whole = [made(number, *item) for number, item in enumerate(lengths)]
    batch = collate([augment(item, plain, generator) for item in whole])
    kept = batch.targets["transcript"]
    assert isinstance(kept, Padded)
    frames = [
        (audio + 3) // 4 or video
        for audio, video in zip(
            batch.inputs["audio"].lengths.tolist(),
            batch.inputs["video"].lengths.tolist(),
            strict=True,
        )
    ]
    for row, (_, _, tokens) in enumerate(lengths):
        expected = tokens if tokens and alignable(tokens, frames[row]) else []
        assert kept.item(row).tolist() == expected
    assert batch.count("transcript") == int((kept.lengths > 0).sum())


@given(items)
@settings(max_examples=10, deadline=None)
def test_the_encoder_has_as_many_frames_as_was_counted(
    lengths: list[tuple[int, int, list[int]]],
) -> None:
    batch = collate([made(number, *item) for number, item in enumerate(lengths)])
    with torch.no_grad():
        terms = method()(batch)
    assert all(bool(torch.isfinite(value)) for value in terms.values())
