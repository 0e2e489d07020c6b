"""What training does to an item; R22: no batch holds a transcript that CTC cannot align."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from helpers.support import random_item, small_method
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from mmembed.batch import Padded
from mmembed.data.item import (
    BAND_MASKS,
    EMPTY,
    LARGEST_SHIFT,
    LONGEST_TIME_MASK,
    STRETCH,
    TIME_MASKS,
    WIDEST_BAND_MASK,
    ZOOM,
    Item,
    augment,
    augment_crops,
    change_gain,
    collate,
    spec_augment,
)
from mmembed.features.audio import log_mel
from mmembed.features.video import CROP
from mmembed.method import Method
from mmembed.settings.pretrain import Augmentation

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


def test_a_gain_is_that_of_the_sound() -> None:
    soft = np.random.default_rng(0).normal(0, 300, 16_000).astype(np.int16)
    made = change_gain(log_mel(soft), 20.0)
    torch.testing.assert_close(made, log_mel(10 * soft), rtol=0, atol=1e-5)


def test_spec_augment_masks_within_its_limits() -> None:
    mel = torch.randn(200, 80, generator=torch.Generator().manual_seed(0)) + 9
    before = mel.clone()
    masked_bands, masked_times = set(), set()
    for seed in range(50):
        out = spec_augment(mel, torch.Generator().manual_seed(seed))
        assert torch.equal(out, spec_augment(mel, torch.Generator().manual_seed(seed)))
        zero = out == 0
        bands, times = zero.all(0), zero.all(1)
        assert torch.equal(zero, bands[None, :] | times[:, None])
        assert torch.equal(out[~zero], mel[~zero])
        masked_bands.add(int(bands.sum()))
        masked_times.add(int(times.sum()))
    assert torch.equal(mel, before)
    assert 0 < max(masked_bands) <= BAND_MASKS * WIDEST_BAND_MASK
    assert 0 < max(masked_times) <= TIME_MASKS * LONGEST_TIME_MASK * 200
    assert spec_augment(mel[:1], torch.Generator().manual_seed(0)).shape == (1, 80)


def test_augmenting_depends_on_the_generator_alone() -> None:
    ramp = np.add.outer(np.linspace(0, 127, CROP), np.linspace(0, 127, CROP)).astype(np.uint8)
    crops = torch.from_numpy(np.stack([ramp] * 5))
    before = crops.clone()
    seen = set()
    for seed in range(20):
        out = augment_crops(crops, torch.Generator().manual_seed(seed))
        assert out.shape == crops.shape and out.dtype == torch.uint8
        assert torch.equal(out, augment_crops(crops, torch.Generator().manual_seed(seed)))
        seen.add(out.numpy().tobytes())
    assert torch.equal(crops, before) and len(seen) == 20


def test_augmenting_treats_all_frames_alike_and_keeps_their_content() -> None:
    """A bright disc stays a bright disc, near the middle, of about its size, in every frame."""
    rows, columns = np.mgrid[:CROP, :CROP] - (CROP - 1) / 2
    disc = np.where(np.hypot(rows, columns) <= 12, 200, 40).astype(np.uint8)
    places, areas, lights = [], [], []
    for seed in range(40):
        still = torch.from_numpy(disc).expand(3, -1, -1)
        out = augment_crops(still, torch.Generator().manual_seed(seed)).numpy()
        assert np.array_equal(out[0], out[1]) and np.array_equal(out[0], out[2])
        middle = float(out[0, CROP // 2, CROP // 2])
        inside = out[0] > 0.75 * middle
        places.append([rows[inside].mean(), columns[inside].mean()])
        areas.append(inside.sum() / (disc == 200).sum())
        lights.append(middle)
    assert 0.5 * LARGEST_SHIFT < np.abs(places).max() < LARGEST_SHIFT + 0.5
    low, high = (1 - ZOOM) ** 2 * (1 - STRETCH), (1 + ZOOM) ** 2 * (1 + STRETCH)
    assert 0.95 * low < min(areas) < 0.9 and 1.1 < max(areas) < 1.05 * high
    assert min(lights) < 170 and max(lights) > 230
