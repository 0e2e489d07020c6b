"""Versions of what decodes and computes: with others, vectors may differ in the last digits."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

LIBRARIES: Final = ("mmembed", "numpy", "torch", "torchaudio", "av", "opencv-python-headless")


def made_with() -> dict[str, str]:
    """Library -> the version installed here."""
    return {name: version(name) for name in LIBRARIES}
