"""Audio-visual-text embeddings of people talking."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mmembed.embedder import Embedder, Embedding
    from mmembed.embeddings.read import load_embeddings

__version__ = "0.1.0"
__all__ = ["Embedder", "Embedding", "__version__", "load_embeddings"]

_HOME: Final = {
    "Embedder": "mmembed.embedder",
    "Embedding": "mmembed.embedder",
    "load_embeddings": "mmembed.embeddings.read",
}


def __getattr__(name: str) -> object:
    """The public names, imported when they are first asked for: `import mmembed` takes no time."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
