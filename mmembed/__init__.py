"""Audio-visual-text embeddings of people talking."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mmembed.embeddings import load_embeddings as load_embeddings

__version__ = "0.1.0"

_PUBLIC: Final = {"load_embeddings": "mmembed.embeddings"}


def __getattr__(name: str) -> object:
    """What a user imports from here is imported when it is asked for."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
