"""CMU-MOSEI: English video monologues, 23,259 segments with sentiment and six emotions.

Zadeh, Liang, Poria, Cambria and Morency, "Multimodal Language Analysis in the Wild: CMU-MOSEI
Dataset and Interpretable Dynamic Fusion Graph", ACL 2018. The pickles hold 16,326, 1,871 and 4,659
segments of the folds. Checksums: README of github.com/thuiar/MMSA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.sentiment import forms
from mmembed.data.corpora.sentiment.corpus import PublishedCorpus
from mmembed.data.manifest.utterance import Utterance

MOSEI: Final = PublishedCorpus(
    name="mosei",
    title="CMU-MOSEI",
    language="en",
    licence="research only",
    limit=3,
    counts={"train": 16_327, "dev": 1_871, "test": 4_662},
    pickle_counts={"train": 16_326, "dev": 1_871, "test": 4_659},
    pickle_widths={"text": 768, "audio": 74, "video": 35},
    csd_widths={"vectors": 300, "covarep": 74, "facet42": 35, "openface2": 713},
    checksums={
        "aligned_50.pkl": "45eccfb748a87c80ecab9bfac29582e7b1466bf6605ff29d3b338a75120bf791",
        "unaligned_50.pkl": "ad8b23d50557045e7d47959ce6c5b955d8d983f2979c7d9b7b9226f6dd6fec1f",
    },
)


def convert(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSEI: videos with labels, .csd files, a pickle of MMSA, or labels alone."""
    return forms.convert(MOSEI, source, out)


def convert_words(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSEI: .csd files, every stream averaged over words."""
    return forms.convert(MOSEI, source, out, words=True)
