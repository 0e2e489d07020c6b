"""Layers of a frozen encoder that were computed once, for training what stands on top of them.

`mmembed extract SHARDS --encoder AUDIO --granularity steps` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mmembed.data.shards.layout import ShardSet
from mmembed.errors import CorruptError, UsageError

STEPS: Final = "steps.npy"


class FrozenLayers:
    """All layers at every step, by key.

    Args:
        folders: of embedding shards.
        sha256: of the encoder that they must be of.

    Raises:
        UsageError: they are of another encoder, hold no steps, or two hold the same clip.
        DataError: a folder holds no shards.
    """

    def __init__(self, folders: Sequence[Path | str], sha256: str) -> None:
        self._sets = [ShardSet(folder) for folder in folders]
        self._places: dict[str, tuple[int, int]] = {}
        for number, shards in enumerate(self._sets):
            made: Any = shards.manifest
            if "steps" not in made.get("granularity", ()):
                raise UsageError(
                    f"{shards.folder}: holds no layers at every step; extract it with "
                    "--granularity steps"
                )
            if made.get("encoder_sha256") != sha256:
                raise UsageError(
                    f"{shards.folder}: of the encoder {str(made.get('encoder_sha256'))[:12]}..., "
                    f"the audio encoder of this run is {sha256[:12]}..."
                )
            for place, key in enumerate(shards.keys):
                if key in self._places:
                    other = self._sets[self._places[key][0]].folder
                    raise UsageError(f"{other} and {shards.folder} both hold {key}")
                self._places[key] = number, place

    def read(self, key: str) -> Tensor:
        """(T, L + 1, D) float32.

        Raises:
            UsageError: the clip is not among them.
            CorruptError: it is damaged.
        """
        if key not in self._places:
            folders = ", ".join(str(shards.folder) for shards in self._sets)
            raise UsageError(f"{key}: its layers are not in {folders}; extract all shards")
        number, place = self._places[key]
        shards = self._sets[number]
        steps = shards.read(place, [STEPS]).members.get(STEPS)
        if not isinstance(steps, np.ndarray) or steps.ndim != 3 or not len(steps):
            raise CorruptError(f"{shards.folder}: {key} holds no {STEPS} of layers")
        return torch.from_numpy(steps.astype(np.float32))
