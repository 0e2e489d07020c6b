"""Write a report of a run: one HTML file that needs no other file and no network.

mmembed report runs/emotion
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mmembed.report import write_report


@dataclass(frozen=True)
class Report:
    """Of what, and where to.

    Attributes:
        run: The output folder of `mmembed demo`, `mmembed pretrain` or `mmembed finetune`.
        out: The file to write. The default is report.html in the folder of the run.
    """

    run: tyro.conf.Positional[Path]
    out: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Write the report, and print where it is."""
    settings = tyro.cli(Report, prog="mmembed report", args=argv, description=__doc__)
    print(write_report(settings.run, settings.out))
