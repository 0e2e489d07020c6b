"""Pictures packed as differences: exact, readable by others, and no bytes that are not theirs."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mmembed.data.shards import differences
from mmembed.data.shards.differences import decode_pictures, encode_pictures

NAME = "video.diff.zst"
DRAW = np.random.default_rng(0)


def packed(array: NDArray[np.generic], extra: bytes = b"") -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, (1, 0))
    data = pa.Codec("zstd").compress(buffer.getvalue() + extra, asbytes=True)
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("shape", [(1, 3, 3), (7, 16, 16), (5, 9, 9, 3), (0, 4, 4)])
def test_pictures_come_back_and_others_can_read_them(shape: tuple[int, ...]) -> None:
    pictures = DRAW.integers(0, 256, shape, np.uint8)
    data = encode_pictures(NAME, pictures)
    found = decode_pictures(NAME, np.frombuffer(data, np.uint8))
    np.testing.assert_array_equal(found, pictures)
    assert found.dtype == np.uint8 and found.flags.writeable
    file = io.BytesIO(pa.input_stream(pa.py_buffer(data), compression="zstd").read())
    np.testing.assert_array_equal(np.cumsum(np.load(file), 0, np.uint8), pictures)


def test_still_pictures_cost_little() -> None:
    still = np.repeat(DRAW.integers(0, 256, (1, 64, 64), np.uint8), 50, 0)
    assert len(encode_pictures(NAME, still)) < still.nbytes / 40


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-20],
        lambda data: np.r_[data, data],
        lambda data: data[:0],
        lambda data: DRAW.integers(0, 256, 90, np.uint8),
        lambda data: packed(np.zeros((2, 4, 4), np.float32)),
        lambda data: packed(np.zeros(4, np.uint8)),
        lambda data: packed(np.zeros((2, 4, 4), np.uint8, "F")),
        lambda data: packed(np.zeros((2, 4, 4), np.uint8), b"more"),
    ],
)
def test_other_bytes_are_refused(damage: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
    whole = encode_pictures(NAME, DRAW.integers(0, 256, (3, 8, 8), np.uint8))
    with pytest.raises(ValueError, match=r"video\.diff\.zst holds no pictures"):
        decode_pictures(NAME, damage(np.frombuffer(whole, np.uint8)))


def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(differences, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="are too many"):
        decode_pictures(NAME, packed(np.zeros((2, 8, 8), np.uint8)))
    for wrong in (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 4, 4), np.int8)):
        with pytest.raises(ValueError, match=r"video\.diff\.zst is "):
            encode_pictures(NAME, wrong)
