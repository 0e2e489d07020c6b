"""Finished fine-tuning runs with answers given by hand, written as studies write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from mmembed.batch import Batch
from mmembed.io.json import write_json
from mmembed.method import Method
from mmembed.settings.finetune import FinetuneLoop, FinetuneRun
from mmembed.settings.optim import OptimConfig
from mmembed.studies import compare as comparison
from mmembed.studies import scoring
from mmembed.studies.scoring import Array, TestSet
from mmembed.studies.study import Study

GROUPS = tuple("aabbccddeeff")
KEYS = tuple(f"{group}{place % 2 + 1}" for place, group in enumerate(GROUPS))
DRAWS = 200
TRUTH = (1.0, -2.0, 0.5, -0.5, 3.0, -1.0, 0.25, 1.5, -2.5, 2.0, -0.25, -3.0)


def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that tests are quick."""
    for module in (scoring, comparison):
        monkeypatch.setattr(module, "DRAWS", DRAWS)


class Seed(nn.Module):
    """Stands where a trained method would; knows which of the answers are its own."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Told(Study):
    """A study whose answers are told: variant -> (S, N, ...)."""

    def __init__(
        self, held: TestSet, variants: Mapping[str, Array], plain: Mapping[str, Array], test: str
    ) -> None:
        seeds = tuple(range(max(map(len, variants.values()))))
        self.run = FinetuneRun("told", OptimConfig(), FinetuneLoop(seeds=seeds))
        self.variants, self.tests = tuple(variants), {test: held}
        self._answers, self._plain = variants, plain

    def size(self, variant: str, split: str) -> int:
        return {"train": 40, "dev": 8}[split]

    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        raise AssertionError("nothing is trained")

    def method(self, variant: str) -> Method:
        raise AssertionError("nothing is trained")

    def predict(self, variant: str, test: str, method: nn.Module) -> Array:  # type: ignore[override]
        assert isinstance(method, Seed)
        return self._answers[variant][method.number]

    def baselines(self, test: str) -> Mapping[str, Array]:
        return self._plain


def sentiment(
    order: Sequence[int] = range(12), metric: str = "mae", truth: Sequence[float] = TRUTH
) -> TestSet:
    """Twelve items of six speakers, all or some of them, in any order."""
    return TestSet(
        "sentiment",
        metric,
        tuple(KEYS[n] for n in order),
        tuple(GROUPS[n] for n in order),
        np.array(truth, np.float32)[list(order)],
        np.array([1.0, 1.0, -1.0], np.float32),
        grouping="speaker",
    )


def write_run(
    folder: Path,
    held: TestSet,
    variants: Mapping[str, Array],
    plain: Mapping[str, Array] | None = None,
    controls: Mapping[str, tuple[TestSet, Mapping[str, Array]]] | None = None,
    test: str = "test",
) -> Path:
    """What `mmembed finetune` would leave, less the methods."""

    def score(out: Path, held: TestSet, variants: Mapping[str, Array]) -> dict[str, object]:
        study = Told(held, variants, plain or {}, test)
        return study.score(
            out,
            lambda variant: [Seed(n) for n in range(len(variants[variant]))],  # type: ignore[misc]
        )

    results = score(folder, held, variants)
    told = {name: score(folder / name, *one) for name, one in (controls or {}).items()}
    write_json(folder / "results.json", {**results, "controls": told})
    run = FinetuneRun("told", OptimConfig(), FinetuneLoop())
    write_json(folder / "run.json", asdict(run))
    return folder
