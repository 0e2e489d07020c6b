"""The product: a frozen encoder as a folder, and as a function from clips to vectors.

    embedder = Embedder.from_pretrained("demo/pretrain/encoder")
    embedding = embedder("clip.mp4")

Parts: `embedder` (the function), `embedding` (what it returns), `clips` (what it takes), `folder`
(what is saved, and the model card in `card`), `recogniser` (words and their times), `words` (their
vectors), `windows` (long recordings), `hub`.
"""

from mmembed.embedder.embedder import Embedder
from mmembed.embedder.embedding import Embedding, Word
from mmembed.embedder.folder import save_encoder
from mmembed.embedder.recogniser import Recogniser

__all__ = ["Embedder", "Embedding", "Recogniser", "Word", "save_encoder"]
