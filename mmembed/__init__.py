"""Audio-visual-text embeddings of people talking."""

__version__ = "0.1.0"
