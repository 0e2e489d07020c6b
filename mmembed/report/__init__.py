"""One self-contained HTML file that shows what a run did."""

from __future__ import annotations

from pathlib import Path

from mmembed import __version__
from mmembed.errors import UsageError
from mmembed.io.atomic import atomic_file
from mmembed.report import embedding_map, emotion, overview, speech, study
from mmembed.report.html import Html
from mmembed.report.page import page
from mmembed.report.run_folder import RunFolder


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write the report of a run folder; the same folder gives the same bytes.

    Args:
        run: what the programs left: the output folder of `finetune`; or `pretrain/`, `emotion/`,
            `embeddings/`, `results.json`, of which a part that is missing is said to be missing.
        out: the file to write, by default `report.html` in the run folder.

    Returns:
        The file written.

    Raises:
        UsageError: the folder does not exist or holds nothing to report.
        CorruptError: a part is there but damaged.
    """
    if not run.is_dir():
        raise UsageError(f"{run}: no such folder; name the output folder of a run")
    html = study.study_page(run) if study.is_study(run) else _run_page(run)
    target = out or run / "report.html"
    with atomic_file(target) as file:
        file.write(html.encode("utf-8", "backslashreplace"))  # a name may be no text
    return target


def _run_page(run: Path) -> Html:
    """Of pre-training, embeddings and emotion."""
    held = RunFolder.read(run)
    if held.is_empty:
        raise UsageError(
            f"{run}: nothing to report; name the folder of a finished `finetune`, or one with "
            "pretrain/, emotion/ or embeddings/"
        )
    return page(
        title=run.resolve().name,
        summary=overview.key_numbers(held),
        sections=[
            speech.learning(held),
            speech.speech(held),
            emotion.sentiment(held),
            emotion.emotions(held),
            embedding_map.embedding_map(held),
            overview.weights(held),
            overview.configuration(held),
        ],
        note=f"Made by mmembed {__version__}. This file is complete in itself.",
    )
