"""Channels of sound to one, at the level of a mono recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.errors import DataError

HIGHEST_PEAK: Final = 4.0
"""Of sound where full scale is 1. Floats may go beyond it by some decibels, and several loud
channels in one by 11; what is higher is on the scale of integers."""
LEAST_OFFSET: Final = 0.05
"""Of full scale. A constant offset from there on is removed. It is a fault of the device: air
pressure has none, and microphones and their amplifiers pass none on. Short clips of a voice have up
to .02, which is left in them."""
CANCELLED: Final = 1 / 8
"""The part of the power of both channels that their mean keeps. It is 1 for equal channels, 1/2
for channels that have nothing in common or one of which is silent; below 1/8 they cancel each
other: more than 9 dB of the sound is lost, which no placing of microphones does to a voice."""

_REAR = sqrt(0.5)  # 3 dB softer than in front (ITU-R BS.775-3)
_POSITIONS: Final[Mapping[str, tuple[float, float]]] = {
    **dict.fromkeys(("FL", "FLC", "DL"), (1.0, 0.0)),
    **dict.fromkeys(("FR", "FRC", "DR"), (0.0, 1.0)),
    **dict.fromkeys(("FC", "BFC"), (1.0, 1.0)),
    **dict.fromkeys(("BL", "SL", "WL", "SDL", "TFL", "TBL", "TSL", "BFL"), (_REAR, 0.0)),
    **dict.fromkeys(("BR", "SR", "WR", "SDR", "TFR", "TBR", "TSR", "BFR"), (0.0, _REAR)),
    **dict.fromkeys(("BC", "TC", "TFC", "TBC"), (_REAR, _REAR)),
    **dict.fromkeys(("LFE", "LFE2"), (0.0, 0.0)),
}  # fmt: skip
"""How much of a channel, by FFmpeg's name of its loudspeaker, goes left and right."""


def mid_and_side(
    samples: NDArray[Any], names: Sequence[str], zero: float = 0.0, one: float = 1.0
) -> NDArray[np.float32]:
    """(channels, samples) to the half sum of left and right and, where these differ, their half
    difference.

    What comes from the centre, or from left and right alike, keeps its level; what comes from the
    back is 3 dB softer, low-frequency effects are left out. Channels of unknown places become their
    mean.

    Args:
        samples: on any scale.
        names: of the loudspeakers.
        zero: the value of silence.
        one: how far from there full scale is.

    Returns:
        (1, samples) or (2, samples), mid and side, where full scale is 1.
    """
    if len(samples) == 2 and _is_pair(tuple(names)):
        side = (samples[0].astype(np.float64) - samples[1]) / (2 * one)
        return np.stack([(samples.mean(axis=0) - zero) / one, side]).astype(np.float32)
    weights = _weights(tuple(names)) if len(samples) > 1 else None
    if weights is None:
        mean: NDArray[np.float32] = ((samples.mean(axis=0) - zero) / one).astype(np.float32)
        return mean[None]
    mixed: NDArray[np.float32] = weights @ ((samples - np.float32(zero)) / np.float32(one))
    return mixed.astype(np.float32, copy=False)


def join(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Parts of `mid_and_side` one after another; all get a side if one has it."""
    if any(len(part) == 2 for part in parts):
        parts = [part if len(part) == 2 else np.pad(part, ((0, 1), (0, 0))) for part in parts]
    return np.concatenate(
        [*parts, np.zeros((len(parts[0]) if parts else 1, 0), np.float32)], axis=1
    )


def layout_note(names: Sequence[str]) -> str | None:
    """What becomes of more than two channels, None of fewer."""
    if len(names) < 3:
        return None
    if _weights(tuple(names)) is None:
        return f"{len(names)} channels of sound of unknown places: their mean"
    return f"{len(names)} channels of sound ({' '.join(names)}) mixed to one"


def _is_pair(names: tuple[str, ...]) -> bool:
    """Whether two channels are left and right, or nothing is known of them."""
    return names in (("FL", "FR"), ("DL", "DR")) or not set(names) & set(_POSITIONS)


@cache
def _weights(names: tuple[str, ...]) -> NDArray[np.float32] | None:
    """(2, channels): mid and side of the channels, None where their places are not known."""
    places = [_POSITIONS.get(name) for name in names]
    left_and_right = np.array([place or (np.nan, np.nan) for place in places], np.float32).T
    if not np.isfinite(left_and_right).all() or not left_and_right.any():
        return None
    weights: NDArray[np.float32] = np.array([[0.5, 0.5], [0.5, -0.5]], np.float32) @ left_and_right
    return weights


class ToMono:
    """One channel from mid and side, block by block; what it does to them stands in `notes`.

    Args:
        path: what errors call the sound.
        limited: whether its format can hold nothing beyond full scale.
    """

    def __init__(self, path: Path, *, limited: bool = True) -> None:
        self._path, self._limited = path, limited
        self._sign = 0  # of the side, where one channel is taken alone
        self._offset: float | None = None
        self.peak = 1.0  # full scale or, of sound that goes beyond it, the highest value
        self.notes: list[str] = []

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The samples of a block.

        Args:
            values: (1, samples) or (2, samples), see `mid_and_side`.

        Raises:
            DataError: they are not finite, or on another scale than [-1, 1].
        """
        peak = self._check(values)
        if not self._limited:
            self.peak = max(self.peak, peak)
        mono = values[0]
        if len(values) == 2:
            if not self._sign and _is_cancelled(*values):
                self._sign = 1 if float(values[0] @ values[1]) >= 0 else -1
                side = "left" if self._sign > 0 else "right"
                self.notes.append(f"the channels cancel each other: the {side} one alone is used")
            if self._sign:
                mono = mono + self._sign * values[1]
        return self._centred(mono)

    def _check(self, values: NDArray[np.float32]) -> float:
        peak = float(np.abs(values).sum(axis=0).max()) if values.size else 0.0
        if not np.isfinite(peak):
            raise DataError(
                str(self._path), "damaged", "cannot be decoded (sound holds infinite values)"
            )
        if peak > HIGHEST_PEAK:
            bits = next((bits for bits in (8, 16, 24) if peak <= 1 << bits), 32)
            message = (
                f"sound peaks at {peak:.6g} where full scale is 1; probably {bits}-bit integers "
                f"stored as floats: divide them by {1 << bits - 1}"
            )
            raise DataError(str(self._path), "scale", message)
        return peak

    def _centred(self, mono: NDArray[np.float32]) -> NDArray[np.float32]:
        """Without a constant offset; exact zeros are gaps that have none."""
        count = np.count_nonzero(mono)
        if self._offset is None and count:
            offset = float(mono.sum(dtype=np.float64)) / count
            self._offset = offset if abs(offset) >= LEAST_OFFSET else 0.0
            if self._offset:
                self.notes.append("a constant offset of the sound is removed")
        if not self._offset:
            return mono
        return np.where(mono == 0, mono, mono - np.float32(self._offset))


def _is_cancelled(mid: NDArray[np.float32], side: NDArray[np.float32]) -> bool:
    kept, lost = float(np.var(mid, dtype=np.float64)), float(np.var(side, dtype=np.float64))
    return lost > 0 and kept < CANCELLED * (kept + lost)
