"""The files in which a study leaves its results: scores as JSON, predictions for each test.

Older versions had other names for some fields: `OLD_NAMES`. They are read here, and nowhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mmembed.config import read_json
from mmembed.errors import CorruptError
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.studies.scoring import GROUP, Array, TestSet

CONSTANT: Final = "constant"  # the baseline that always predicts the same
OLD_NAMES: Final = {"measure": "metric", "trivial": CONSTANT}


def read_results(path: Path) -> dict[str, Any]:
    """The scores of a finished run, `results.json`.

    Raises:
        CorruptError: it is no JSON object.
        FileNotFoundError: there is none.
    """
    return {name: _rename(value) for name, value in read_json(path).items()}


def _rename(value: Any) -> Any:
    """The same with today's names of fields."""
    if isinstance(value, list):
        return [_rename(one) for one in value]
    if isinstance(value, dict):
        return {OLD_NAMES.get(name, name): _rename(one) for name, one in value.items()}
    return value


@dataclass(frozen=True)
class TestPredictions:
    """Predictions of a study for one test, as they are stored.

    Attributes:
        items: the test set, without the training truth.
        variants: variant -> (S, N, ...), one for each seed.
        baselines: name -> (1, N, ...), of oracles (S, N, ...); `CONSTANT` among them.
    """

    items: TestSet
    variants: Mapping[str, Array]
    baselines: Mapping[str, Array] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write a safetensors file."""
        items = self.items
        kept = ("task", "metric", "keys", "groups", "grouping", "names")
        metadata = {name: getattr(items, name) for name in kept}
        metadata |= {"variants": list(self.variants), "baselines": list(self.baselines)}
        tensors = {"truth": items.truth}
        tensors |= {f"variants/{name}": values for name, values in self.variants.items()}
        tensors |= {f"baselines/{name}": values for name, values in self.baselines.items()}
        contiguous = {name: np.ascontiguousarray(values) for name, values in tensors.items()}
        with atomic_file(path) as file:
            file.write(save(contiguous, {"mmembed": dumps(metadata)}))

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` wrote.

        Raises:
            CorruptError: it is no such file.
        """
        try:
            with safe_open(path, "numpy") as file:
                metadata = _rename(json.loads(file.metadata()["mmembed"]))
                truth = file.get_tensor("truth")
                variants, baselines = (
                    {name: file.get_tensor(f"{part}/{name}") for name in metadata[part]}
                    for part in ("variants", "baselines")
                )
            items = TestSet(
                metadata["task"],
                metadata["metric"],
                tuple(metadata["keys"]),
                tuple(metadata["groups"]),
                truth,
                truth[:0],
                tuple(metadata["names"]),
                str(metadata.get("grouping", GROUP)),
            )
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            raise CorruptError(f"{path}: holds no predictions of a study ({error})") from None
        return cls(items, variants, _rename(baselines))
