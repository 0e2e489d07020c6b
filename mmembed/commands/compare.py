"""Compare methods, from the output folders of `mmembed finetune`.

Example:
    mmembed compare runs/self_mm runs/gated --reference "self_mm: self_mm" --out compare.html

Each test has a row for every run and variant, its controls, its baselines and the constant
baseline. A row shows mean and standard deviation over seeds, a 95 % interval over groups (speakers,
dialogues or clips), and the difference to a reference row, with its interval and the two-sided
p-value of a bootstrap that draws the same groups for both rows. Runs are in one table if their
tests have the same items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import tyro

from mmembed.errors import printable
from mmembed.io.progress import progress

if TYPE_CHECKING:
    from mmembed.studies.compare import Comparison

SHOWN: Final = 3  # metrics printed beside the one that is compared


@dataclass(frozen=True)
class Compare:
    """What is compared.

    Attributes:
        runs: Output folders of `mmembed finetune`.
        reference: Row that all others are compared with, by its name in the table; by default the
            first.
        metric: Metric to show, such as mae; by default the main metric of the test.
        test: Show only this test.
        published: Under each table, what others published of the same corpus.
        out: Also write an HTML page with tables and bars to this file.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    reference: str | None = None
    metric: str | None = None
    test: str | None = None
    published: bool = False
    out: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each test, and write the page if asked."""
    settings = tyro.cli(Compare, prog="mmembed compare", args=argv, description=__doc__)
    from mmembed.studies.compare import compare
    from mmembed.studies.finished_runs import read_runs

    runs = read_runs(settings.runs)
    with progress("compare %", 100) as update:
        comparisons = compare(
            runs,
            metric=settings.metric,
            reference=settings.reference,
            test=settings.test,
            update=lambda fraction: update(100 * fraction),
        )
    if settings.published:
        comparisons = [_with_published(one) for one in comparisons]
    print("\n\n".join("\n".join(as_text(one)) for one in comparisons), flush=True)
    if settings.out is not None:
        from mmembed.report.compare import write_comparison  # draws: takes a second to import

        print(f"\n{write_comparison(runs, comparisons, settings.out)}")


def _with_published(comparison: Comparison) -> Comparison:
    """With the figures of others among its notes."""
    from mmembed.protocols.published import ABOUT, published_for

    known = published_for(comparison.items.keys)
    lines = [line for one in known for line in one.lines()]
    if not lines:
        lines = [f"published: nothing is known here of clips other than {'-, '.join(ABOUT)}-"]
    return replace(comparison, notes=(*comparison.notes, *lines))


def as_text(comparison: Comparison) -> Iterator[str]:
    """The lines for a terminal."""
    from mmembed.metrics.bootstrap import count_groups, num_groups
    from mmembed.studies.scoring import LOWER_IS_BETTER

    metric, shown = comparison.metric, comparison.others[:SHOWN]
    better = "lower" if metric in LOWER_IS_BETTER else "higher"
    names = [printable(row.name) for row in comparison.rows]
    width = max(24, *map(len, names))
    items = comparison.items
    yield (
        f"{printable(comparison.title)}: {count_groups(len(items.keys), 'item')} of "
        f"{count_groups(num_groups(items.groups), items.grouping)}; {metric}: {better} is better; "
        f"differences to {printable(comparison.reference)}"
    )
    yield (
        f"{'':{width}} {metric:>16} {'95 % interval':>16} {'difference':>11} "
        f"{'95 % interval':>17} {'p':>6} " + " ".join(f"{other:>11}" for other in shown)
    )
    rests = [
        f"{(counted := items.counted(m)).sum()} / {num_groups(items.groups, counted)}"
        for m in (metric, *shown)
    ]
    yield (
        f"{'(items / groups)':{width}} {rests[0]:>16} {'':16} {'':11} "
        f"{'':17} {'':6} " + " ".join(f"{rest:>11}" for rest in rests[1:])
    )
    for name, row in zip(names, comparison.rows, strict=True):
        main, gap = row.scores[metric], row.difference
        spread = f" +- {main['std']:5.3f}" if row.seeds > 1 and main["std"] is not None else ""
        between = f"{main['low']:.3f} to {main['high']:.3f}" if "low" in main else "-"
        cells = f"{_cell(main['mean'], 7)}{spread:9} {between:>16} "
        if gap is None or "low" not in gap:
            mean = "-" if gap is None else f"{gap['mean']:+.3f}"
            cells += f"{mean:>11} {'':17} {'':6} "
        else:
            between = f"{gap['low']:+.3f} to {gap['high']:+.3f}"
            cells += f"{gap['mean']:+11.3f} {between:>17} {gap['p']:6.3f} "
        others = " ".join(_cell(row.scores[other]["mean"], 11) for other in shown)
        yield f"{name:{width}} {cells}{others}"
    yield from (f"  {printable(note)}" for note in comparison.notes)


def _cell(value: float | None, width: int) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.3f}"
