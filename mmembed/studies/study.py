"""What the fine-tuning program asks of a study: data as batches, methods, scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from mmembed.batch import Batch
from mmembed.errors import MmembedError, UsageError
from mmembed.method import Method
from mmembed.metrics.bootstrap import count_groups
from mmembed.settings.finetune import FinetuneRun
from mmembed.studies import trained_on
from mmembed.studies.results import CONSTANT, TestPredictions
from mmembed.studies.scoring import LOWER_IS_BETTER, Array, TestSet
from mmembed.studies.trained_on import TrainedOn
from mmembed.training.optim import OwnRate

CHOSEN_ON_TEST: Final = " (epoch chosen on test)"

Trained = Callable[[str], Sequence[Method]]
"""Variant -> its trained methods, one for each seed, read when asked for."""


class Study(ABC):
    """One table: variants of a method, trained and scored on the same data.

    Attributes:
        run: with the sizes that only the data could tell; it is saved and decides everything.
        variants: what is trained side by side, such as stream subsets or ablations.
        tests: name -> held-out items that all variants are scored on. They are predicted once, when
            everything is trained.
        oracles: variants that know more than they could in use, such as the labels of the target
            corpus; they stand with the baselines and do not compete.
        controls: name -> the same study on other data, such as vectors of the untrained encoder;
            its variants' scores stand beside ours in the results.
        notes: what of the data was left out, and why.
        large: whether tests are predicted on a GPU, where there is one; small methods on the CPU.
    """

    run: FinetuneRun
    variants: tuple[str, ...]
    tests: Mapping[str, TestSet]
    oracles: frozenset[str] = frozenset()
    controls: Mapping[str, Study] = MappingProxyType({})
    notes: Sequence[str] = ()
    large: bool = False

    @abstractmethod
    def size(self, variant: str, split: str) -> int:
        """Items of a split, "train" or "dev"."""

    @abstractmethod
    def batch(self, variant: str, split: str, rows: Sequence[int]) -> Batch:
        """Some items of a split."""

    def lengths(self, variant: str) -> Sequence[int] | None:
        """How long each training item is, where items of similar length should share a batch."""
        return None

    @abstractmethod
    def method(self, variant: str) -> Method:
        """A new method, its weights drawn from torch's default generator."""

    @abstractmethod
    def predict(self, variant: str, test: str, method: Method) -> Array | None:
        """(N, ...) predictions for a test's items; None where the variant is not tested on it."""

    def own_rates(self, variant: str, method: Method) -> Sequence[OwnRate]:
        """Parameters of a method whose rates are not those of the run."""
        return ()

    def rows(self, variant: str, test: str, method: Method) -> Mapping[str, Array]:
        """Row of the test's table -> predictions; several where a method predicts in several ways.

        The rows depend on variant and test alone.
        """
        predicted = self.predict(variant, test, method)
        return {} if predicted is None else {variant: predicted}

    def baselines(self, test: str) -> Mapping[str, Array]:
        """Name -> (N, ...) predictions of simpler ways."""
        return {}

    def extras(self, out: Path, trained: Trained) -> dict[str, Any]:
        """What else the results tell, as plain JSON values; may write files for the report."""
        return {}

    def trained_on(self) -> TrainedOn | None:
        """What predictions are to say that the methods were trained on."""
        return None

    @property
    def mark(self) -> str:
        """What the rows of all variants end in."""
        return CHOSEN_ON_TEST if self.run.loop.select == "best-on-test" else ""

    def test_score(self, variant: str, method: Method) -> float:
        """The mean over tests of the metric that decides, higher is better; of a method in eval."""
        scores = [
            items.score(items.metric, predicted) * (-1 if items.metric in LOWER_IS_BETTER else 1)
            for test, items in self.tests.items()
            if (predicted := self.predict(variant, test, method)) is not None
        ]
        return float(np.mean(scores))

    def score(self, out: Path, trained: Trained) -> dict[str, Any]:
        """Scores on all tests; predictions are written to `out/predictions`.

        Raises:
            MmembedError: a method has diverged, its predictions are no numbers.
        """
        if (data := self.trained_on()) is not None:
            trained_on.write(out, data)
        predictions: dict[str, dict[str, Array]] = {test: {} for test in self.tests}
        for variant in self.variants:
            methods = trained(variant)
            for test, by_row in predictions.items():
                each = [self.rows(variant, test, method.eval()) for method in methods]
                for row in dict.fromkeys(row for rows in each for row in rows):
                    predicted = np.stack([rows[row] for rows in each])
                    if count := int((~np.isfinite(predicted)).sum()):
                        raise MmembedError(
                            f"{variant}: {count} of {predicted.size} predictions of test {test} "
                            "are not finite; lower --optim.lr and train into another --out"
                        )
                    by_row[row + self.mark] = predicted
        return {
            "tests": {test: self._score(out, test, rows) for test, rows in predictions.items()},
            "seeds": list(self.run.loop.seeds),
            "items": {split: self.size(self.variants[0], split) for split in ("train", "dev")},
            "notes": list(self.notes),
            **self.extras(out, trained),
        }

    def _score(self, out: Path, test: str, variants: Mapping[str, Array]) -> dict[str, Any]:
        items = self.tests[test]
        own = {name: values for name, values in variants.items() if name not in self.oracles}
        oracles = {name: values for name, values in variants.items() if name in self.oracles}
        baselines = oracles | {name: one[None] for name, one in self.baselines(test).items()}
        constant = {CONSTANT: items.constant(items.metric)[None]}
        file = out / "predictions" / f"{test}.safetensors"
        TestPredictions(items, own, baselines | constant).write(file)
        return {
            "task": items.task,
            "metric": items.metric,
            **items.counts(),
            "variants": {name: items.scores(values) for name, values in own.items()},
            "baselines": {name: items.scores(values) for name, values in baselines.items()},
            CONSTANT: items.constant_scores(),
        }


def decided(tests: Mapping[str, TestSet], where: str) -> tuple[dict[str, TestSet], list[str]]:
    """The tests that can be scored, and why others cannot.

    Args:
        tests: name -> held-out items.
        where: the data.

    Raises:
        UsageError: there is nothing to score.
    """
    whys = {name: test.undecided() for name, test in tests.items()}
    notes = [f"no table of {name}: {why}" for name, why in whys.items() if why]
    if len(notes) == len(tests):
        raise UsageError(f"{where}: nothing to score: {'; '.join(notes)}")
    return {name: test for name, test in tests.items() if not whys[name]}, notes


def check_settings(run: FinetuneRun) -> None:
    """Whether anything is trained by them.

    Raises:
        UsageError: names the setting.
    """
    loop = run.loop
    if not loop.seeds or len({*loop.seeds}) < len(loop.seeds):
        given = " ".join(map(str, loop.seeds)) or "(none)"
        raise UsageError(f"--loop.seeds {given}: give one or more, each once")


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """The lines to print: for each test a row for each variant, the baselines, the constant one.

    Below the names of the metrics, how many items and groups they rest on.
    """
    for name, test in results["tests"].items():
        decides = test["metric"]
        others = [m for m in test[CONSTANT] if m != decides][:3]
        sizes = [count_groups(test["items"], "item")]
        if counts := test.get("counts"):  # runs of older versions have none
            sizes.append(count_groups(test["groups"], test["grouping"]))
        yield f"{name} ({', '.join(sizes)})"
        yield f"{'':28} {decides:>16} {'95 % interval':>15} " + " ".join(f"{m:>11}" for m in others)
        if counts:
            rests = {m: f"{c['items']} / {c['groups']}" for m, c in counts.items()}
            yield (
                f"{'(items / groups)':28} {rests[decides]:>16} {'':15} "
                + " ".join(f"{rests[m]:>11}" for m in others)
            )
        for row, scores in {**test["variants"], **test["baselines"]}.items():
            main = scores[decides]
            between = f"{main['low']:8.3f}-{main['high']:.3f}" if "low" in main else f"{'-':>8}"
            yield (
                f"{row:28} {_cell(main['mean'], 7)} +- {_cell(main['std'], 5)} {between:14}  "
                + " ".join(_cell(scores[m]["mean"], 11) for m in others)
            )
        cells = " ".join(_cell(test[CONSTANT][m], 11) for m in others)
        yield f"{'(constant)':28} {_cell(test[CONSTANT][decides], 7)}{'':26}{cells}"
        yield from (f"  {note}" for note in (*test.get("notes", ()), *_interval_notes(test)))
    yield from results.get("notes", ())


def _interval_notes(test: Mapping[str, Any]) -> Iterator[str]:
    """Why figures have no interval, each reason once."""
    reasons: dict[str, dict[str, None]] = {}
    for scores in {**test["variants"], **test["baselines"]}.values():
        for measure, figure in scores.items():
            if measure != "f1" and "note" in figure:  # f1 has a number for each class
                reasons.setdefault(figure["note"], {})[measure] = None
    yield from (f"{', '.join(measures)}: {note}" for note, measures in reasons.items())


def _cell(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.3f}"
