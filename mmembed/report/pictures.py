"""Pictures within a page."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mmembed.pictures import picture_url
from mmembed.report.markup import Html, tag


def picture(pixels: NDArray[Any], name: str) -> Html:
    """(H, W) grey pixels within the page itself."""
    return tag("img", src=picture_url(pixels), alt=name)
