"""One self-contained page with what a search found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmembed import __version__
from mmembed.io.atomic import atomic_file
from mmembed.report.html import Section, table, tag
from mmembed.report.page import page
from mmembed.report.pictures import picture


def write_nearest(
    query: str,
    about: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    crops: Sequence[NDArray[np.uint8] | None],
    out: Path,
) -> None:
    """Write the page.

    Args:
        query: what was asked.
        about: a sentence on where.
        head: names of the columns, among them "rank", "cosine" and "key".
        rows: cells of each clip found, nearest first.
        crops: (H, W) of each, None where there is none.
        out: the file.
    """
    rank, cosine, key = (head.index(name) for name in ("rank", "cosine", "key"))
    faces = [
        tag(
            "figure",
            picture(crop, row[key]),
            tag("small", f"{row[rank]}. {row[key]} ({row[cosine]})"),
        )
        for row, crop in zip(rows, crops, strict=True)
        if crop is not None
    ]
    sections = [Section("Nearest", about, [tag("div", table(head, rows), class_="facts")])]
    if faces:
        lead = "The middle frame of each, as the encoder sees it."
        sections.insert(0, Section("Faces", lead, [tag("div", faces, class_="faces")]))
    html = page(
        title=query,
        summary=tag("p", about, class_="lead"),
        sections=sections,
        note=f"Made by mmembed {__version__}. This file is complete in itself.",
    )
    with atomic_file(out) as file:
        file.write(html.encode("utf-8", "backslashreplace"))  # a name may be no text
