"""CMU-MOSI: English video monologues about movies, 2,199 segments with sentiment.

Zadeh, Zellers, Pincus and Morency, "MOSI: Multimodal Corpus of Sentiment Intensity and Subjectivity
Analysis in Online Opinion Videos", 2016. Checksums: README of github.com/thuiar/MMSA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.sentiment import forms
from mmembed.data.corpora.sentiment.corpus import PublishedCorpus
from mmembed.data.manifest.utterance import Utterance

MOSI: Final = PublishedCorpus(
    name="mosi",
    title="CMU-MOSI",
    language="en",
    licence="research only",
    limit=3,
    counts={"train": 1_284, "dev": 229, "test": 686},
    pickle_widths={"text": 768, "audio": 5, "video": 20},
    csd_widths={"vectors": 300, "covarep": 74, "facet42": 47},
    checksums={
        "aligned_50.pkl": "d3994fd25681f9c7ad6e9c6596a6fe9b4beb85ff7d478ba978b124139002e5f9",
        "unaligned_50.pkl": "78e0f8b5ef8ff71558e7307848fc1fa929ecb078203f565ab22b9daab2e02524",
    },
)


def convert(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSI: videos with labels, .csd files, a pickle of MMSA, vectors, or labels alone."""
    return forms.convert(MOSI, source, out)


def convert_words(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSI: .csd files, every stream averaged over words."""
    return forms.convert(MOSI, source, out, words=True)
