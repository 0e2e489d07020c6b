"""One vector for a text, by a pretrained text encoder that stays as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.backbones.text import load_backbone
from mmembed.batch import Padded

LENGTH = 128  # tokens read of a text
BATCH = 64  # texts at once


@torch.no_grad()
def text_vectors(backbone: str, texts: Sequence[str]) -> Tensor:
    """(N, D) unit vectors: the mean of the last hidden states of all tokens of each text.

    As Sentence-BERT pools (Reimers and Gurevych 2019, arXiv 1908.10084). Equal texts are read once.

    Args:
        backbone: a folder, or a name on the hub, see `load_backbone`.
        texts: N, none of them empty.
    """
    model, tokenizer = load_backbone(backbone)
    model.eval()
    distinct = list(dict.fromkeys(texts))
    ids = [torch.tensor(tokenizer.tokenize(text, None, LENGTH).ids) for text in distinct]
    order = sorted(range(len(ids)), key=lambda place: len(ids[place]))
    vectors = torch.empty(len(ids), model.width)
    for start in range(0, len(order), BATCH):
        places = order[start : start + BATCH]
        batch = Padded.stack([ids[place] for place in places])
        states = Padded(model(batch.values, batch.mask), batch.lengths)
        means = (states.values * states.mask[..., None]).sum(1) / states.lengths[:, None]
        vectors[places] = F.normalize(means)
    row = {text: place for place, text in enumerate(distinct)}
    return vectors[[row[text] for text in texts]]
