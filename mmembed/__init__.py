"""Audio-visual-text embeddings of people talking."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmembed.embedder import Embedder, Embedding

__version__ = "0.1.0"
__all__ = ["Embedder", "Embedding", "__version__"]


def __getattr__(name: str) -> object:
    """The public names, imported when they are first asked for: `import mmembed` takes no time."""
    if name in __all__:
        return getattr(import_module("mmembed.embedder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
