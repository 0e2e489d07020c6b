"""Pictures within a page."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from mmembed.report.html import Html, tag
from mmembed.report.picture_urls import picture_url


def picture(pixels: NDArray[Any], name: str) -> Html:
    """(H, W) grey pixels within the page itself."""
    return tag("img", src=picture_url(pixels), alt=name)
