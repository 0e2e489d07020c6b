"""Action units of the faces of RAVDESS, as OpenFace measures them: one vector a performance.

An `.npz` with `ids` (N,), names of RAVDESS' videos without suffix, and `action_units` (N, 35): the
intensities, 0 to 5, of 17 units and the presence, 0 to 1, of 18, averaged over frames. Units and
ranges: Baltrusaitis, Zadeh, Lim and Morency, "OpenFace 2.0", FG 2018.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from mmembed.data.corpora.files import read_arrays
from mmembed.data.corpora.ravdess import NAME, utterance
from mmembed.data.feature_files import write_features
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import DataError

UNITS: Final = 35


def convert(source: Path, out: Path) -> list[Utterance]:
    """RAVDESS' faces as action units: precomputed vectors, no images.

    The stream `video` of an utterance is its vector, as one step.

    Args:
        source: the .npz, or a folder with one.
        out: gets features/all.safetensors.

    Raises:
        DataError: no such file, or arrays other than described above.
    """
    path = next(iter(sorted(source.glob("*.npz"))), source) if source.is_dir() else source
    names, units = read_arrays(path, "ids", "action_units")
    if names.ndim != 1 or units.shape != (len(names), UNITS) or not np.isfinite(units).all():
        found = f"{names.shape} and {units.shape}"
        needed = f"needs ids (N,) and finite action_units (N, {UNITS}), found {found}"
        raise DataError(str(path), "features", needed)
    rows = []
    for number, name in enumerate(map(str, names)):
        match = re.fullmatch(NAME, name)
        if match is None:
            raise DataError(f"{path}:{name}", "features", "not the name of a RAVDESS video")
        row = utterance(match, f"features/all.safetensors#{number}")
        rows.append(replace(row, streams=("video", "text")))
    vectors = [{"video": vector[None].astype(np.float32)} for vector in units]
    write_features(out / "features" / "all.safetensors", vectors)
    return rows
