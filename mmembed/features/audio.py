"""Audio to log-mel features: fixed, the same for every clip, nothing learned."""

from __future__ import annotations

import math
from functools import cache
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from numpy.typing import NDArray
from torch import Tensor

SAMPLE_RATE: Final = 16_000  # Hz
FEATURE_RATE: Final = 100  # Hz
HOP: Final = 160  # samples from step to step
WINDOW: Final = 400  # samples, 25 ms
FFT: Final = 512  # samples, the window and zeros
MEL_BANDS: Final = 80
assert HOP * FEATURE_RATE == SAMPLE_RATE

POWER_FLOOR: Final = 1e-8  # of a band, for sound in [-1, 1]: about the noise of 16-bit samples
LOG_MEAN: Final = -7.0  # about the mean and deviation of log-mel speech; constants, not statistics
LOG_SCALE: Final = 4.0


def log_mel(waveform: NDArray[np.float32]) -> NDArray[np.float16]:
    """Log-mel power, scaled by constants to about zero mean and unit variance on speech.

    Step t is centred on sample 160 t + 80; sound beyond the ends counts as silence. No statistic
    of the clip enters: level is kept, and a part of a recording has the features it has in the
    whole, to one step of float16.

    Args:
        waveform: (samples,) float32 mono at 16 kHz in [-1, 1], at least one sample.

    Returns:
        (T, 80) float16 at 100 Hz, T = ceil(samples / 160). Rounded to float16 here, so that stored
        and fresh features agree bit for bit on one machine.
    """
    if waveform.ndim != 1 or not len(waveform):
        raise ValueError(f"waveform must be (samples,), at least one; found {waveform.shape}")
    steps = -(-len(waveform) // HOP)
    before = (FFT - HOP) // 2
    samples = F.pad(torch.from_numpy(waveform), (before, steps * HOP - len(waveform) + before))
    spectrum = torch.stft(
        samples, FFT, HOP, WINDOW, torch.hann_window(WINDOW), center=False, return_complex=True
    )
    power = spectrum.real.square() + spectrum.imag.square()  # (257, T)
    logs = (_filters() @ power).clamp(min=POWER_FLOOR).log()
    scaled: NDArray[np.float16] = ((logs.T - LOG_MEAN) / LOG_SCALE).numpy().astype(np.float16)
    return scaled


@cache
def _filters() -> Tensor:
    """(80, 257) triangular mel filters, 20 Hz to 8 kHz."""
    filters: Tensor = torchaudio.functional.melscale_fbanks(
        FFT // 2 + 1, 20.0, SAMPLE_RATE / 2, MEL_BANDS, SAMPLE_RATE
    )
    return filters.T.contiguous()


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
