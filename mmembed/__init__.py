"""Embeddings of people talking on video, from audio, face video and text.

The names below are public; docs/api.md says what they promise. Each is imported when it is first
used, so that `import mmembed` takes no time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mmembed.batch import Batch, Packed, Padded
    from mmembed.data.manifest.jsonl import read_manifest, write_manifest
    from mmembed.data.manifest.timed_words import TimedWord
    from mmembed.data.manifest.utterance import Labels, Utterance
    from mmembed.embedder import Embedder, Embedding, Word, save_encoder
    from mmembed.embeddings.read import load_embeddings
    from mmembed.embeddings.search import EmbeddingSearch
    from mmembed.embeddings.sklearn import EmbeddingTransformer
    from mmembed.encoder import Encoder
    from mmembed.errors import CorruptError, DataError, MmembedError, UsageError
    from mmembed.method import Method
    from mmembed.settings.encoder import EncoderConfig

__version__ = "0.1.0"
__all__ = [
    "Batch",
    "CorruptError",
    "DataError",
    "Embedder",
    "Embedding",
    "EmbeddingSearch",
    "EmbeddingTransformer",
    "Encoder",
    "EncoderConfig",
    "Labels",
    "Method",
    "MmembedError",
    "Packed",
    "Padded",
    "TimedWord",
    "UsageError",
    "Utterance",
    "Word",
    "__version__",
    "load_embeddings",
    "read_manifest",
    "save_encoder",
    "write_manifest",
]

_MODULES: Final = {
    "mmembed.batch": ("Batch", "Packed", "Padded"),
    "mmembed.data.manifest.jsonl": ("read_manifest", "write_manifest"),
    "mmembed.data.manifest.utterance": ("Labels", "Utterance"),
    "mmembed.data.manifest.timed_words": ("TimedWord",),
    "mmembed.embedder": ("Embedder", "Embedding", "Word", "save_encoder"),
    "mmembed.embeddings.read": ("load_embeddings",),
    "mmembed.embeddings.search": ("EmbeddingSearch",),
    "mmembed.embeddings.sklearn": ("EmbeddingTransformer",),
    "mmembed.encoder": ("Encoder", "EncoderConfig"),
    "mmembed.errors": ("CorruptError", "DataError", "MmembedError", "UsageError"),
    "mmembed.method": ("Method",),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
