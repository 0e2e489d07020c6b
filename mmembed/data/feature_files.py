"""Precomputed features of others: many utterances in one safetensors file, read a row at a time.

A stream S of N utterances is two tensors, `S` (all steps of all of them, D) float32 and
`S.offsets` (N + 1,) int64: utterance n has the steps offsets[n] to offsets[n + 1]. There is no
padding, and a stream that an utterance lacks has no steps. Manifest rows name an utterance as
"FILE.safetensors#N".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmembed.errors import CorruptError, DataError
from mmembed.io.atomic import atomic_file

SUFFIX: Final = ".safetensors"
OFFSETS: Final = ".offsets"

Features = Mapping[str, NDArray[np.float32]]
"""Stream -> (T, D) float32."""


def write_features(path: Path, utterances: Sequence[Features]) -> None:
    """Write the features of many utterances, whole or not at all.

    Args:
        path: of the file, with the suffix .safetensors.
        utterances: stream -> (T, D); the width D of a stream is the same for all.

    Raises:
        ValueError: a stream has two widths.
    """
    streams = sorted({stream for features in utterances for stream in features})
    tensors: dict[str, NDArray[Any]] = {}
    for stream in streams:
        widths = {x.shape[1] for features in utterances if (x := features.get(stream)) is not None}
        if len(widths) > 1:
            raise ValueError(f"{stream} has the widths {sorted(widths)}; one is allowed")
        nothing = np.zeros((0, *widths), np.float32)
        parts = [features.get(stream, nothing) for features in utterances]
        tensors[stream] = np.concatenate(parts, dtype=np.float32)
        tensors[stream + OFFSETS] = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    with atomic_file(path) as file:
        file.write(save(tensors))


def read_features(path: Path, row: int) -> dict[str, NDArray[np.float32]]:
    """The features of one utterance; streams without a step are left out.

    Raises:
        DataError: no such file or row.
        CorruptError: the file is damaged.
    """
    if not path.is_file():
        raise DataError(str(path), "missing", "no such file of features")
    try:
        stamp = path.stat()
        offsets = _offsets(path, stamp.st_mtime_ns, stamp.st_size)
        if any(not 0 <= row < len(ends) - 1 for ends in offsets.values()):
            raise DataError(f"{path}#{row}", "missing", "no such row")
        with safe_open(path, "numpy") as file:
            return {
                stream: file.get_slice(stream)[int(ends[row]) : int(ends[row + 1])]
                for stream, ends in offsets.items()
                if ends[row] < ends[row + 1]
            }
    except SafetensorError as error:
        raise CorruptError(f"{path}: damaged: {error}") from None


@lru_cache(maxsize=16)
def _offsets(path: Path, _modified: int, _size: int) -> dict[str, NDArray[np.int64]]:
    """Stream -> offsets; kept while the file stays what it is."""
    with safe_open(path, "numpy") as file:
        names = [name for name in file.keys() if name.endswith(OFFSETS)]  # noqa: SIM118
        offsets = {name.removesuffix(OFFSETS): file.get_tensor(name) for name in names}
        where = f"{path}: damaged"
        for stream, ends in offsets.items():
            steps = file.get_slice(stream).get_shape()
            if ends.ndim != 1 or ends.dtype != np.int64 or not len(ends) or len(steps) != 2:
                raise CorruptError(f"{where}: {stream} and its offsets are no arrays of steps")
            if ends[0] != 0 or ends[-1] != steps[0] or (np.diff(ends) < 0).any():
                raise CorruptError(f"{where}: offsets of {stream} lie outside of its steps")
        return offsets
