"""Pictures within a page."""

from __future__ import annotations

import base64
from typing import Any, Final

import cv2
from numpy.typing import NDArray

JPEG_QUALITY: Final = 85


def picture_url(pixels: NDArray[Any]) -> str:
    """(H, W) grey or (H, W, 3) RGB pixels as a data URL."""
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    _, jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()
