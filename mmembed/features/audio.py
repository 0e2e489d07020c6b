"""Audio to 16-bit samples at 16 kHz and these to log-mel: fixed, nothing learned."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes seconds to import, and decoding needs none
    from torch import Tensor

SAMPLE_RATE: Final = 16_000  # Hz
SAMPLES_PER_FRAME: Final = 640  # of the 25 Hz frame grid
FULL_SCALE: Final = 1 << 15  # of int16 samples
FEATURE_RATE: Final = 100  # Hz
HOP: Final = 160  # samples from step to step
WINDOW: Final = 400  # samples, 25 ms
FFT: Final = 512  # samples, the window and zeros
MEL_BANDS: Final = 80
assert HOP * FEATURE_RATE == SAMPLE_RATE

POWER_FLOOR: Final = 1e-8  # of a band, for sound in [-1, 1]: about the noise of 16-bit samples
LOG_MEAN: Final = -7.0  # about the mean and deviation of log-mel speech; constants, not statistics
LOG_SCALE: Final = 4.0


def to_int16(waveform: NDArray[np.float32]) -> NDArray[np.int16]:
    """(samples,) in [-1, 1] as 16-bit samples; what is beyond full scale is clipped.

    Every clip passes through this, whether or not it is stored, so that both give the same vectors.
    """
    scaled = np.rint(waveform * np.float32(FULL_SCALE))
    samples: NDArray[np.int16] = np.clip(scaled, -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return samples


def to_float(samples: NDArray[np.int16]) -> Tensor:
    """(samples,) 16-bit samples as float32 in [-1, 1)."""
    import torch

    return torch.from_numpy(samples.astype(np.float32)) / FULL_SCALE


def log_mel(samples: NDArray[np.int16]) -> Tensor:
    """Log-mel power, scaled by constants to about zero mean and unit variance on speech.

    Step t is centred on sample 160 t + 80; sound beyond the ends counts as silence. No statistic
    of the clip enters: level is kept, and a part of a recording has the features it has in the
    whole, but for the steps at its ends.

    Args:
        samples: (N,) int16 mono at 16 kHz, at least one sample.

    Returns:
        (T, 80) float32 at 100 Hz, T = ceil(N / 160).
    """
    import torch
    import torch.nn.functional as F

    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples must be (N,), at least one; found {samples.shape}")
    steps, before = -(-len(samples) // HOP), (WINDOW - HOP) // 2
    behind = steps * HOP - len(samples) + FFT - HOP - before
    padded = F.pad(to_float(samples), (before, behind))
    window = F.pad(torch.hann_window(WINDOW), (0, FFT - WINDOW))
    with torch.autocast("cpu", enabled=False):  # whatever the encoder is computed in
        spectrum = torch.fft.rfft(padded.unfold(0, FFT, HOP) * window)  # (T, 257)
        squares = torch.view_as_real(spectrum).square_()
        power = (squares[..., 0] + squares[..., 1]) @ _filters()
    return power.clamp_(min=POWER_FLOOR).log_().sub_(LOG_MEAN).div_(LOG_SCALE)


@cache
def _filters() -> Tensor:
    """(257, 80) triangular mel filters, 20 Hz to 8 kHz."""
    sizes = (FFT // 2 + 1, 20.0, SAMPLE_RATE / 2, MEL_BANDS, SAMPLE_RATE)
    try:
        from torchaudio.functional import melscale_fbanks
    except (
        ImportError,
        OSError,
    ):  # its last version is of torch 2.11, and loads not with all later
        return mel_filters(*sizes)
    filters: Tensor = melscale_fbanks(*sizes)
    return filters


def mel_filters(bins: int, low: float, high: float, bands: int, rate: int) -> Tensor:
    """Triangular filters of equal width on the mel scale of HTK, each 1 at its middle; to the last
    bit those of `torchaudio.functional.melscale_fbanks`.

    Args:
        bins: of the spectrum, from 0 Hz to half the rate.
        low: Hz, where the first filter begins.
        high: Hz, where the last one ends.
        bands: how many filters there are.
        rate: of the samples, Hz.

    Returns:
        (bins, bands).
    """
    import torch

    first, last = (2595 * math.log10(1 + hz / 700) for hz in (low, high))
    edges = 700 * (10 ** (torch.linspace(first, last, bands + 2) / 2595) - 1)
    below = edges[None] - torch.linspace(0, rate // 2, bins)[:, None]
    widths = edges[1:] - edges[:-1]
    falling, rising = -below[:, :-2] / widths[:-1], below[:, 2:] / widths[1:]
    return torch.minimum(falling, rising).clamp(min=0)


def resample(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Sound at any rate to 16 kHz, with an anti-aliasing filter.

    As fast as torchaudio's, whose kernel takes gigabytes for rates without a large common divisor
    with 16 kHz, such as 44,099 Hz.

    Args:
        waveform: (samples,) at `rate`.
        rate: Hz.

    Returns:
        (ceil(samples * 16000 / rate),).
    """
    if rate == SAMPLE_RATE or not len(waveform):
        return waveform
    from scipy.signal import resample_poly  # takes a second to import; few programs need it

    divisor = math.gcd(rate, SAMPLE_RATE)
    resampled = resample_poly(waveform, SAMPLE_RATE // divisor, rate // divisor)
    return np.asarray(resampled, dtype=np.float32)
