"""One vector for a text, by a pretrained text encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.backbones.pretrained import load_pretrained
from mmembed.backbones.text import TextEncoder, TextTokenizer
from mmembed.batch import Packed

LENGTH = 128  # tokens read of a text
BATCH = 64  # texts at once


def load_text_encoder(name: str) -> tuple[TextEncoder, TextTokenizer]:
    """A pretrained text encoder and its tokenizer; see `load_pretrained`.

    Args:
        name: a folder, or a name on the hub.
    """
    found = load_pretrained(name, "text")
    assert isinstance(found.encoder, TextEncoder) and found.tokenizer is not None
    return found.encoder, found.tokenizer


@torch.no_grad()
def text_vectors(backbone: str, texts: Sequence[str]) -> Tensor:
    """(N, D) unit vectors: the mean of the last hidden states of all tokens of each text.

    As Sentence-BERT pools (Reimers and Gurevych 2019, arXiv 1908.10084). Equal texts are read once.

    Args:
        backbone: a folder, or a name on the hub, see `load_text_encoder`.
        texts: N, none of them empty.
    """
    model, tokenizer = load_text_encoder(backbone)
    distinct = list(dict.fromkeys(texts))
    ids = [torch.tensor(tokenizer.tokenize(text, None, LENGTH).ids) for text in distinct]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    vectors = torch.empty(len(ids), model.width)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        states = model(Packed.concatenate([ids[place] for place in places]))[-1]
        vectors[places] = F.normalize(states.total() / states.lengths[:, None])
    row = {text: place for place, text in enumerate(distinct)}
    return vectors[[row[text] for text in texts]]
