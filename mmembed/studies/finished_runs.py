"""Finished fine-tuning runs, and which of their tests have the same items.

Tests of two runs are the same where keys and truth of their items are, in whatever order. Nothing
is cut down to what two tests happen to share.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from mmembed.config import read_json
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import plural
from mmembed.studies.scoring import Indices, TestPredictions, TestSet

Json = dict[str, Any]
Part = Literal["variant", "control", "baseline"]


@dataclass(frozen=True)
class StudyRun:
    """What a finished `mmembed finetune` left.

    Attributes:
        path: its folder.
        name: that tells it from the others it is compared with.
        config: all settings.
        results: scores as the study wrote them.
    """

    path: Path
    name: str
    config: Json
    results: Json

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
        results = read_json(path / "results.json")
        if not isinstance(results.get("tests"), dict):
            raise UsageError(f"{path}: its results.json has no tests; it is no run of `finetune`")
        return cls(path, name or path.resolve().name, read_json(path / "run.json"), results)


@dataclass(frozen=True)
class ResultSource:
    """A run, or one of its controls.

    Attributes:
        run: the run, or the one that the control belongs to.
        control: its name; "" for the run itself.
        prefix: of its rows' names.
    """

    run: StudyRun
    control: str
    prefix: str

    @property
    def label(self) -> str:
        return f"{self.run.name}, {self.control}" if self.control else self.run.name

    @property
    def part(self) -> Part:
        """What its variants are in a table."""
        return "control" if self.control else "variant"

    @property
    def folder(self) -> Path:
        return self.run.path / self.control

    @property
    def tests(self) -> Mapping[str, Json]:
        """Test -> scores."""
        results = self.run.results
        tests: Mapping[str, Json] = (
            results["controls"][self.control]["tests"] if self.control else results["tests"]
        )
        return tests

    def read(self, test: str) -> TestPredictions:
        """Its predictions."""
        return TestPredictions.read(self.folder / "predictions" / f"{test}.safetensors")


@dataclass(frozen=True)
class RunPredictions:
    """What one source predicted for one test."""

    source: ResultSource
    test: str
    scored: TestPredictions


@dataclass(frozen=True)
class Sheet:
    """Answers to the same items, at most one of each source; the first one's order counts."""

    answers: list[RunPredictions]

    @property
    def held(self) -> TestSet:
        return self.answers[0].scored.held

    @property
    def name(self) -> str:
        """The test's, or the tests' where they differ."""
        return " / ".join(dict.fromkeys(one.test for one in self.answers))

    @property
    def runs(self) -> list[str]:
        return list(dict.fromkeys(one.source.run.name for one in self.answers))

    @property
    def labels(self) -> list[str]:
        return [one.source.label for one in self.answers]

    def has(self, source: ResultSource) -> bool:
        return any(one.source is source for one in self.answers)

    def notes(self, sheets: Sequence[Sheet], sources: Sequence[ResultSource]) -> Iterator[str]:
        """Why other sources have no answers here, and who groups the items otherwise."""
        for source in sources:
            if not self.has(source) and (not source.control or source.run.name in self.runs):
                yield _why_absent(self, source, sheets)
        first, *rest = self.answers
        ours = plural(self.held.grouping)
        for other in rest:
            held = other.scored.held
            theirs = np.array(held.groups)[in_order(self.held, held)].tolist()
            pairs = {*zip(self.held.groups, theirs, strict=True)}
            if not len(pairs) == len({*self.held.groups}) == len({*theirs}):
                yield (
                    f"groups are those of {first.source.label} ({ours}); {other.source.label} has "
                    f"others ({plural(held.grouping)})"
                )
            elif held.grouping != self.held.grouping:
                yield (
                    f"groups are the {ours} of {first.source.label}; {other.source.label} calls "
                    f"the same ones {plural(held.grouping)}"
                )


def read_runs(paths: Sequence[Path]) -> list[StudyRun]:
    """Runs named by their folders, by their whole paths where two have the same name.

    Raises:
        UsageError: none, one named twice, or not the folder of a finished run.
        CorruptError: a file is damaged.
    """
    if not paths:
        raise UsageError("compare: name the output folder of a run of `finetune`, or several")
    places = [path.resolve() for path in paths]
    for path, place in zip(paths, places, strict=True):
        if places.count(place) > 1:
            raise UsageError(f"{path}: named twice")
    names = [place.name for place in places]
    distinct = len({*names}) == len(names)
    return [
        StudyRun.read(path, name if distinct else str(path))
        for path, name in zip(paths, names, strict=True)
    ]


def sources_of(runs: Sequence[StudyRun]) -> list[ResultSource]:
    """Each run, then its controls; several runs put their name before those of their rows."""
    found = []
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        found.append(ResultSource(run, "", prefix))
        for control in run.results.get("controls") or {}:
            found.append(ResultSource(run, control, f"{prefix}{control}, "))
    return found


def sheets_of(sources: Sequence[ResultSource], tests: Sequence[str]) -> list[Sheet]:
    """Answers to the same items together: to a test of the same name, else to the only other one.

    Raises:
        CorruptError: predictions are missing or damaged.
    """
    sheets: list[Sheet] = []
    for source in sources:
        for test in (name for name in source.tests if name in tests):
            new = RunPredictions(source, test, source.read(test))
            same = [
                sheet
                for sheet in sheets
                if not sheet.has(source) and obstacle(sheet.held, new.scored.held) is None
            ]
            named = [sheet for sheet in same if any(test == one.test for one in sheet.answers)]
            if named or len(same) == 1:
                (named or same)[0].answers.append(new)
            else:
                sheets.append(Sheet([new]))
    return sheets


def obstacle(ours: TestSet, theirs: TestSet) -> str | None:
    """Why two tests are not the same; None where they are."""
    if ours.task != theirs.task:
        return f"another task ({theirs.task})"
    if sorted(ours.keys) != sorted(theirs.keys):
        common = len({*ours.keys} & {*theirs.keys})
        return f"different items ({len(theirs.keys)}, {common} of them among these)"
    if ours.names != theirs.names:
        return "other classes"
    order = in_order(ours, theirs)
    if order is None:
        return "keys that occur twice, in another order"
    if not np.array_equal(ours.truth, theirs.truth[order], equal_nan=True):
        return "the same items with another truth"
    return None


def in_order(ours: TestSet, theirs: TestSet) -> Indices | None:
    """(N,) the place of each of our items among theirs; None where equal keys hide it."""
    if ours.keys == theirs.keys:
        return np.arange(len(ours.keys))
    places = {key: place for place, key in enumerate(theirs.keys)}
    if len(places) < len(theirs.keys):
        return None
    return np.array([places[key] for key in ours.keys], np.int64)


def _why_absent(sheet: Sheet, source: ResultSource, sheets: Sequence[Sheet]) -> str:
    theirs = {
        one.test: one.scored.held
        for other in sheets
        for one in other.answers
        if one.source is source
    }
    names = {one.test for one in sheet.answers}
    alike = [test for test in theirs if test in names] or list(theirs)
    if len(alike) != 1:
        return f"not compared with {source.label}: none of its tests has these items"
    why = obstacle(sheet.held, theirs[alike[0]]) or "the same items under another name"
    return f"not compared with {alike[0]!r} of {source.label}: {why}"
