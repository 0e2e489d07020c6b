"""Write the tables of docs/results.md from the files of finished runs, so that nobody types them.

    python benchmarks/results_page.py RUNS
    python benchmarks/results_page.py RUNS --check

A table of the page stands between two comments. The first says what it is made of, by paths below
RUNS, the folder in which the commands of the page were run:

    <!-- table: compare demux: macro_f1 jaccard -->
        a row for each method of finished runs of `mmembed finetune` (folders, before the colon),
        with these metrics, the first with its interval and the difference to the first row
    <!-- table: evaluate maeb.json emobox.json -->
        a row for each folder of embeddings in files that `mmembed evaluate --out` wrote
    <!-- table: file whisper/tables/ravdess.md -->
        a table that a program of this folder wrote
    <!-- end of table -->

Tables whose files are not below RUNS stay as they are, and are named. With `--check` nothing is
written: exit code 1 says that a table differs from its files.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tyro

from mmembed.config import read_json
from mmembed.studies.compare import Row, compare
from mmembed.studies.finished_runs import read_runs

PAGE: Final = Path(__file__).parents[1] / "docs" / "results.md"
TABLE: Final = re.compile(r"(<!-- table: (\w+) (.*?) -->\n)(.*?)(<!-- end of table -->)", re.DOTALL)


@dataclass(frozen=True)
class Settings:
    """What is written.

    Attributes:
        runs: the folder that the paths of the page are below.
        page: the page.
        check: write nothing; exit code 1 if a table differs from its files.
    """

    runs: tyro.conf.Positional[Path]
    page: Path = PAGE
    check: bool = False


def main() -> None:
    """Replace the tables whose files are there."""
    settings = tyro.cli(Settings, description=__doc__)
    before = settings.page.read_text(encoding="utf-8")
    after, missing = filled(before, settings.runs)
    for source in missing:
        print(f"left as it is, since its files are not below {settings.runs}: {source}")
    if settings.check and after != before:
        sys.exit(f"{settings.page}: a table differs from its files; run again without --check")
    if after != before:
        settings.page.write_text(after, encoding="utf-8")
    print(f"{settings.page}: {'changed' if after != before else 'tables are those of the files'}")


def filled(page: str, runs: Path) -> tuple[str, list[str]]:
    """The page with its tables made anew.

    Args:
        page: its text.
        runs: folder of the result files.

    Returns:
        The text, and what the tables are made of whose files are missing.
    """
    missing: list[str] = []

    def made(found: re.Match[str]) -> str:
        head, kind, source, old, end = found.groups()
        names, _, metrics = source.partition(": ")
        paths = [runs / name for name in names.split()]
        if not all(path.exists() for path in paths):
            missing.append(f"{kind} {source}")
            return found.group()
        table = "\n".join(TABLES[kind](paths, metrics.split()))
        return f"{head}{table}\n{end}" if table != old.strip() else found.group()

    return TABLE.sub(made, page), missing


def compared(paths: Sequence[Path], metrics: Sequence[str]) -> Iterator[str]:
    """Rows of finished runs on the same items."""
    first, *others = metrics
    for comparison in compare(read_runs(paths), metric=first):
        titles = [f"{first} (mean, standard deviation over seeds; interval)", *others]
        yield f"| {comparison.title} | {' | '.join(titles)} | minus {comparison.reference} |"
        yield "|---" * (len(metrics) + 2) + "|"
        for row in comparison.rows:
            cells = [_main(row, first), *(_number(row.scores[name]["mean"]) for name in others)]
            yield f"| {row.name} | {' | '.join(cells)} | {_difference(row)} |"


def evaluated(paths: Sequence[Path], metrics: Sequence[str]) -> Iterator[str]:
    """Rows of protocols, each with the speaker-independent figure of the same vectors."""
    leak = "test speakers also in training"
    yield f"| protocol | embeddings | accuracy | UAR | {leak} | unseen speakers: UAR |"
    yield "|---" * 6 + "|"
    for path in paths:
        held = read_json(path)
        for name, result in held["embeddings"].items():
            honest = result["honest"]
            unseen = "-" if honest is None else _number(honest["uar"]) + _between(honest)
            yield (
                f"| {held['protocol']} | {name} | {_number(result['accuracy'])} "
                f"| {_number(result['uar'])} | {_leak(result['folds'])} | {unseen} |"
            )


def copied(paths: Sequence[Path], metrics: Sequence[str]) -> Iterator[str]:
    """Tables as programs wrote them."""
    for path in paths:
        yield path.read_text(encoding="utf-8").strip()


TABLES: Final = {"compare": compared, "evaluate": evaluated, "file": copied}


def _main(row: Row, metric: str) -> str:
    scores = row.scores[metric]
    spread = f" +- {scores['std']:.3f}" if row.seeds > 1 and scores["std"] is not None else ""
    return f"{_number(scores['mean'])}{spread}{_between(scores)}"


def _difference(row: Row) -> str:
    gap = row.difference
    if gap is None:
        return "-"
    between = f" ({gap['low']:+.3f} to {gap['high']:+.3f})" if "low" in gap else ""
    return f"{gap['mean']:+.3f}{between}"


def _leak(folds: Sequence[Mapping[str, Any]]) -> str:
    """The most of any fold."""
    known = [fold for fold in folds if fold["test_speakers"] is not None]
    if not known:
        return "unknown"
    worst = max(known, key=lambda fold: fold["test_speakers_in_training"])
    return f"{worst['test_speakers_in_training']} of {worst['test_speakers']}"


def _between(scores: Mapping[str, Any]) -> str:
    low, high = scores.get("low"), scores.get("high")
    return "" if low is None or high is None else f" ({low:.3f}-{high:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    main()
