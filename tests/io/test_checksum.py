"""The checksum is the CRC-32 of zlib, whoever computes it."""

import zlib

import numpy as np

from mmembed.io.checksum import crc32


def test_is_crc32() -> None:
    assert crc32(b"123456789") == 0xCBF43926  # the catalogued check value of CRC-32
    data = np.random.default_rng(0).integers(0, 256, 100_001, dtype=np.uint8)
    for start in (0, 1, 512):
        assert crc32(data[start:].data) == zlib.crc32(data[start:].tobytes())
    assert crc32(b"6789", crc32(b"12345")) == 0xCBF43926
