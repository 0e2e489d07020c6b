"""The page of `mmembed search`: the clips found, with faces where there are any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmembed.report.pictures import picture_url
from mmembed.report.render import write_page


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
        query: the clip, text or key that was searched for.
        about: a sentence on where.
        head: names of the columns, among them "rank", "cosine" and "key".
        rows: cells of each clip found, nearest first.
        crops: (H, W) or (H, W, 3) of each, None where there is none.
        out: the file.
    """
    rank, cosine, key = (head.index(name) for name in ("rank", "cosine", "key"))
    faces = [
        (picture_url(crop), row[key], f"{row[rank]}. {row[key]} ({row[cosine]})")
        for row, crop in zip(rows, crops, strict=True)
        if crop is not None
    ]
    write_page("search.html", out, title=query, about=about, head=head, rows=rows, faces=faces)
