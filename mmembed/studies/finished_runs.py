"""Finished fine-tuning runs, and which of their tests have the same items.

Tests of two runs are the same where keys and truth of their items are, in whatever order. Nothing
is cut down to the items that two tests share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from mmembed.config import read_json
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import plural
from mmembed.studies.results import TestPredictions, read_results
from mmembed.studies.scoring import Indices, TestSet

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """The output of a finished `mmembed finetune`, or of one of its controls.

    Attributes:
        path: its folder.
        name: that of the run among those it is compared with.
        config: all settings.
        results: scores as the study wrote them.
        control: name of the control; "" for the run itself.
    """

    path: Path
    name: str
    config: Json
    results: Json
    control: str = ""

    @classmethod
    def read(cls, path: Path, name: str = "") -> Self:
        """Read a run's folder; its name is the folder's where none is given.

        Raises:
            UsageError: it is no folder of a finished run.
            CorruptError: a file is damaged.
        """
        if not path.is_dir():
            raise UsageError(f"{path}: no such folder; name the output folder of `finetune`")
        if not (path / "run.json").is_file():
            raise UsageError(f"{path}: holds no run.json; name the output folder of `finetune`")
        if not (path / "results.json").is_file():
            raise UsageError(
                f"{path}: holds no results.json; if `finetune` was stopped, run it again"
            )
        results = read_results(path / "results.json")
        if not isinstance(results.get("tests"), dict):
            raise UsageError(f"{path}: its results.json has no tests; it is no run of `finetune`")
        return cls(path, name or path.resolve().name, read_json(path / "run.json"), results)

    @property
    def label(self) -> str:
        return f"{self.name}, {self.control}" if self.control else self.name

    @property
    def tests(self) -> Mapping[str, Json]:
        """Test -> scores."""
        tests: Mapping[str, Json] = self.results["tests"]
        return tests

    def controls(self) -> Iterator[Self]:
        """Its controls, as runs in folders of their own."""
        for name, results in (self.results.get("controls") or {}).items():
            yield replace(self, path=self.path / name, results=results, control=name)

    def predictions(self, test: str) -> TestPredictions:
        """What it predicted for a test."""
        return TestPredictions.read(self.path / "predictions" / f"{test}.safetensors")


@dataclass(frozen=True)
class TestGroup:
    """Tests of several runs that have the same items, in the order of the first one's.

    Attributes:
        tests: run -> the name of its test.
        predictions: run -> its predictions for that test.
    """

    tests: dict[FinishedRun, str]
    predictions: dict[FinishedRun, TestPredictions]

    @property
    def items(self) -> TestSet:
        return next(iter(self.predictions.values())).items

    @property
    def name(self) -> str:
        """The test's, or the tests' where they differ."""
        return " / ".join(dict.fromkeys(self.tests.values()))

    def notes(self, groups: Sequence[TestGroup], runs: Sequence[FinishedRun]) -> Iterator[str]:
        """Why other runs are not in this group, and which of its runs group the items otherwise."""
        names = {run.name for run in self.tests}
        for run in runs:
            if run not in self.tests and (not run.control or run.name in names):
                yield self._why_absent(run, groups)
        (first, _), *rest = self.predictions.items()
        ours = plural(self.items.grouping)
        for run, predictions in rest:
            items = predictions.items
            theirs = np.array(items.groups)[item_order(self.items, items)].tolist()
            pairs = {*zip(self.items.groups, theirs, strict=True)}
            if not len(pairs) == len({*self.items.groups}) == len({*theirs}):
                yield (
                    f"groups are those of {first.label} ({ours}); {run.label} has "
                    f"others ({plural(items.grouping)})"
                )
            elif items.grouping != self.items.grouping:
                yield (
                    f"groups are the {ours} of {first.label}; {run.label} calls "
                    f"the same ones {plural(items.grouping)}"
                )

    def _why_absent(self, run: FinishedRun, groups: Sequence[TestGroup]) -> str:
        theirs = {g.tests[run]: g.predictions[run].items for g in groups if run in g.tests}
        candidates = [test for test in theirs if test in self.tests.values()] or list(theirs)
        if len(candidates) != 1:
            return f"not compared with {run.label}: none of its tests has these items"
        (test,) = candidates
        why = mismatch(self.items, theirs[test]) or "the same items under another name"
        return f"not compared with {test!r} of {run.label}: {why}"


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Runs named by their folders, by their whole paths where two have the same name.

    Raises:
        UsageError: none, one named twice, or not the folder of a finished run.
        CorruptError: a file is damaged.
    """
    if not paths:
        raise UsageError("compare: name the output folder of a run of `finetune`, or several")
    folders = [path.resolve() for path in paths]
    for path, folder in zip(paths, folders, strict=True):
        if folders.count(folder) > 1:
            raise UsageError(f"{path}: named twice")
    names = [folder.name for folder in folders]
    distinct = len({*names}) == len(names)
    return [
        FinishedRun.read(path, name if distinct else str(path))
        for path, name in zip(paths, names, strict=True)
    ]


def group_tests(runs: Sequence[FinishedRun], tests: Sequence[str]) -> list[TestGroup]:
    """Tests with the same items together: with the test of the same name, else the only other one.

    Raises:
        CorruptError: predictions are missing or damaged.
    """
    groups: list[TestGroup] = []
    for run in runs:
        for test in (name for name in run.tests if name in tests):
            predictions = run.predictions(test)
            same = [
                group
                for group in groups
                if run not in group.tests and mismatch(group.items, predictions.items) is None
            ]
            named = [group for group in same if test in group.tests.values()]
            if named or len(same) == 1:
                group = (named or same)[0]
            else:
                groups.append(group := TestGroup({}, {}))
            group.tests[run], group.predictions[run] = test, predictions
    return groups


def mismatch(ours: TestSet, theirs: TestSet) -> str | None:
    """Why two tests are not the same; None where they are."""
    if ours.task != theirs.task:
        return f"another task ({theirs.task})"
    if sorted(ours.keys) != sorted(theirs.keys):
        common = len({*ours.keys} & {*theirs.keys})
        return f"different items ({len(theirs.keys)}, {common} of them among these)"
    if ours.names != theirs.names:
        return "other classes"
    order = item_order(ours, theirs)
    if order is None:
        return "keys that occur twice, in another order"
    if not np.array_equal(ours.truth, theirs.truth[order], equal_nan=True):
        return "the same items with another truth"
    return None


def item_order(ours: TestSet, theirs: TestSet) -> Indices | None:
    """(N,) the position of each of our items among theirs; None where equal keys hide it."""
    if ours.keys == theirs.keys:
        return np.arange(len(ours.keys))
    positions = {key: position for position, key in enumerate(theirs.keys)}
    if len(positions) < len(theirs.keys):
        return None
    return np.array([positions[key] for key in ours.keys], np.int64)
