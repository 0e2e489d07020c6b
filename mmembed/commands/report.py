"""`mmembed report RUN`: one HTML file that shows what a run did."""

from __future__ import annotations

from pathlib import Path

import tyro

from mmembed.report import write_report


def report(run: tyro.conf.Positional[Path], out: Path | None = None) -> None:
    """Write one self-contained HTML report of a run, and print where it is.

    Args:
        run: The output folder of the demo, or of finetune.
        out: The file to write; RUN/report.html if not given.
    """
    print(write_report(run, out))


def main(argv: list[str]) -> None:
    tyro.cli(report, args=argv, prog="mmembed report", description=report.__doc__)
