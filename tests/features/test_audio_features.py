"""Log-mel against an independent computation, and what its augmentations and resampling promise."""

from __future__ import annotations

import math
import sys
from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mmembed.features.audio import (
    LOG_MEAN,
    LOG_SCALE,
    POWER_FLOOR,
    _filters,
    log_mel,
    mel_filters,
    resample,
    to_int16,
)

FLOOR = (math.log(POWER_FLOOR) - LOG_MEAN) / LOG_SCALE


def sine(hertz: float, seconds: float, *, rate: int = 16_000) -> NDArray[np.float32]:
    time = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(samples: int, level: float = 3_000) -> NDArray[np.int16]:
    return (level * np.random.default_rng(0).standard_normal(samples)).astype(np.int16)


def band_centres() -> NDArray[np.float64]:
    """(82,) Hz: the corners of 80 triangles, even on the mel scale of O'Shaughnessy (1987)."""
    mel = np.linspace(2595 * np.log10(1 + 20 / 700), 2595 * np.log10(1 + 8000 / 700), 82)
    return 700 * (10 ** (mel / 2595) - 1)


def reference(waveform: NDArray[np.float64]) -> NDArray[np.float64]:
    """(T, 80) in double precision, one window at a time: 25 ms Hann, centred on 160 t + 80."""
    corners, bins = band_centres(), np.arange(257) * 16_000 / 512
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for centre in range(80, 80 + 160 * math.ceil(len(waveform) / 160), 160):
        places = np.arange(centre - 200, centre + 200)
        inside = (places >= 0) & (places < len(waveform))
        samples = np.where(inside, waveform[np.clip(places, 0, len(waveform) - 1)], 0.0)
        power = np.abs(np.fft.rfft(samples * window, 512)) ** 2
        row = []
        for low, middle, high in zip(corners, corners[1:], corners[2:], strict=False):
            rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
            row.append(np.maximum(0, np.minimum(rising, falling)) @ power)
        rows.append((np.log(np.maximum(row, POWER_FLOOR)) - LOG_MEAN) / LOG_SCALE)
    return np.array(rows)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 4000])
def test_equals_an_independent_computation(samples: int) -> None:
    sound = noise(samples)
    mel = log_mel(sound)
    assert mel.shape == (math.ceil(samples / 160), 80) and mel.dtype == torch.float32
    np.testing.assert_allclose(mel, reference(sound / 2**15), atol=1e-4)


@pytest.mark.parametrize("shape", [(0,), (2, 160)])
def test_refuses_what_is_not_mono_sound(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        log_mel(np.zeros(shape, np.int16))


def test_a_sine_peaks_in_the_band_of_its_frequency() -> None:
    for hertz in (500.0, 1000.0, 3000.0):
        nearest = int(np.abs(band_centres()[1:-1] - hertz).argmin())
        assert set(log_mel(to_int16(sine(hertz, 0.5)))[5:-5].argmax(1).tolist()) == {nearest}


def test_silence_lies_on_the_floor() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(1600, np.int16)), np.full((10, 80), FLOOR), 1e-6)


def test_twenty_decibels_raise_every_band_by_as_much() -> None:
    soft = noise(16_000, level=300)
    gain = math.log(100) / LOG_SCALE  # 20 dB = 100 times the power
    np.testing.assert_allclose(log_mel(10 * soft) - log_mel(soft), gain, atol=1e-5)


def test_a_part_has_the_features_it_has_in_the_whole() -> None:
    """Up to the rounding of a product of another length."""
    whole = noise(16_000)
    mel = log_mel(whole)
    close = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    close(log_mel(whole[:8000])[:48], mel[:48])  # the edges see silence
    close(log_mel(whole[3200:])[2:], mel[22:])


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
def test_resampling_keeps_a_tone_and_its_length(rate: int) -> None:
    out = resample(sine(1000, 1.0, rate=rate), rate)
    assert out.dtype == np.float32 and abs(len(out) - 16_000) <= 1
    inner = slice(1000, 15_000)
    np.testing.assert_allclose(out[inner], sine(1000, 1.0)[inner], atol=0.01)


def test_resampling_removes_what_would_alias() -> None:
    heard = resample(sine(11_000, 1.0, rate=44_100), 44_100)[1000:-1000]  # would sound as 5 kHz
    assert np.abs(heard).max() < 0.5 * 10 ** (-40 / 20)


@pytest.mark.parametrize(
    "sizes", [(257, 20.0, 8_000.0, 80, 16_000), (201, 0.0, 4_000.0, 23, 8_000)]
)
def test_filters_are_those_of_torchaudio(sizes: tuple[int, float, float, int, int]) -> None:
    functional = pytest.importorskip("torchaudio.functional")
    assert torch.equal(mel_filters(*sizes), functional.melscale_fbanks(*sizes))


def test_without_torchaudio_the_features_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    before = log_mel(noise(4_000))
    monkeypatch.setitem(sys.modules, "torchaudio.functional", None)  # its import fails
    _filters.cache_clear()
    assert torch.equal(log_mel(noise(4_000)), before)
    _filters.cache_clear()
