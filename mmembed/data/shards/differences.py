"""Pictures as differences from one to the next, packed with zstd: a third of their bytes, exactly.

The bytes of a member are one zstd frame of an npy file (1.0) of uint8 (T, ...): the first picture,
then what each adds to the one before, modulo 256. `numpy.cumsum(differences, 0, "uint8")` gives the
pictures.
"""

from __future__ import annotations

import io
import itertools
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

SUFFIX: Final = ".diff.zst"
LEVEL: Final = 3  # higher ones take four times as long for 7 % less
MOST_BYTES: Final = 6 << 30  # of the pictures: 300 s of 512 x 512 RGB


def encode_pictures(name: str, pictures: NDArray[np.uint8]) -> bytes:
    """The bytes of a member.

    Raises:
        ValueError: they are no pictures, or too many.
    """
    if pictures.dtype != np.uint8 or pictures.ndim < 2 or pictures.nbytes > MOST_BYTES:
        raise ValueError(f"{name} is {pictures.dtype} {pictures.shape}")
    differences = np.concatenate([pictures[:1], pictures[1:] - pictures[:-1]])
    buffer = io.BytesIO()
    npy.write_array(buffer, differences, (1, 0), allow_pickle=False)
    packed: bytes = pa.Codec("zstd", LEVEL).compress(buffer.getbuffer(), asbytes=True)
    return packed


def decode_pictures(name: str, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The inverse of `encode_pictures`.

    Raises:
        ValueError: these are not its bytes.
    """
    try:
        with pa.input_stream(pa.py_buffer(data), compression="zstd") as stream:
            head = stream.read(10)
            length = int.from_bytes(head[8:10], "little")
            file = io.BytesIO(head + stream.read(length))
            if npy.read_magic(file) != (1, 0):
                raise ValueError("another version than 1.0")
            shape, fortran, dtype = npy.read_array_header_1_0(file)
            if dtype != np.uint8 or fortran or len(shape) < 2 or min(shape) < 0:
                raise ValueError(f"{dtype} {shape}")
            if np.prod(shape, dtype=object) > MOST_BYTES:
                raise ValueError(f"{shape} are too many")
            pictures = np.empty(shape, np.uint8)
            filled, rest = 0, pictures.reshape(-1)
            while filled < pictures.nbytes and (count := stream.readinto(rest[filled:])):
                filled += count
            if filled != pictures.nbytes or stream.read(1):
                raise ValueError(f"not the bytes of {shape}")
    except Exception as error:  # of the reader of npy headers, which raises anything
        raise ValueError(f"{name} holds no pictures ({error})") from None
    for before, after in itertools.pairwise(pictures):
        after += before
    return pictures
