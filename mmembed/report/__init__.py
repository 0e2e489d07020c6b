"""Self-contained HTML files that show what a run did and what a corpus holds.

`render.py` fills the templates, `plots.py` draws; the other modules prepare what a page shows.
"""

from __future__ import annotations

from pathlib import Path

from mmembed.errors import UsageError


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder; the same folder gives the same bytes.

    Args:
        run: what the programs left: the output folder of `finetune` or `pretrain`; or `pretrain/`,
            `emotion/`, `embeddings/`, `results.json`, of which those missing are said to be so.
        out: the file to write, by default `report.html` in the run folder.

    Returns:
        The file written.

    Raises:
        UsageError: the folder does not exist or holds nothing to report.
        CorruptError: a part is there but damaged.
    """
    from mmembed.report.pipeline import write_pipeline  # draws: takes a second to import
    from mmembed.report.study import is_study, write_study

    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; name the output folder of a run")
    write = write_study if is_study(run) else write_pipeline
    return write(run, out or run / "report.html")
