"""CMU-MOSEI, CMU-MOSI and CH-SIMS: what their authors publish of them, and their converters.

CMU-MOSEI: English video monologues, 23,259 segments with sentiment and six emotions. Zadeh, Liang,
Poria, Cambria and Morency, "Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and
Interpretable Dynamic Fusion Graph", ACL 2018. The pickles hold 16,326, 1,871 and 4,659 segments of
the folds.

CMU-MOSI: English video monologues about movies, 2,199 segments with sentiment. Zadeh, Zellers,
Pincus and Morency, "MOSI: Multimodal Corpus of Sentiment Intensity and Subjectivity Analysis in
Online Opinion Videos", 2016.

CH-SIMS: Chinese clips of movies and shows, 2,281 segments with sentiment in [-1, 1]; the scores are
the sentiment of text, audio and video alone. Yu et al., "CH-SIMS: A Chinese Multimodal Sentiment
Analysis Dataset with Fine-grained Annotation of Modality", ACL 2020.

Checksums: README of github.com/thuiar/MMSA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.sentiment.corpus import PublishedCorpus
from mmembed.data.corpora.sentiment.forms import convert
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
SIMS: Final = PublishedCorpus(
    name="sims",
    title="CH-SIMS",
    language="zh",
    licence="research only",
    limit=1,
    counts={"train": 1_368, "dev": 456, "test": 457},
    pickle_widths={"text": 768, "audio": 33, "video": 709},
    checksums={
        "unaligned_39.pkl": "c9e20c13ec0454d98bb9c1e520e490c75146bfa2dfeeea78d84de047dbdd442f"
    },
)


def convert_mosei(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSEI: videos with labels, .csd files, a pickle of MMSA, or labels alone."""
    return convert(MOSEI, source, out)


def convert_mosei_words(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSEI: .csd files, every stream averaged over words."""
    return convert(MOSEI, source, out, words=True)


def convert_mosi(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSI: videos with labels, .csd files, a pickle of MMSA, vectors, or labels alone."""
    return convert(MOSI, source, out)


def convert_mosi_words(source: Path, out: Path) -> list[Utterance]:
    """CMU-MOSI: .csd files, every stream averaged over words."""
    return convert(MOSI, source, out, words=True)


def convert_sims(source: Path, out: Path) -> list[Utterance]:
    """CH-SIMS: videos with labels, a pickle of MMSA, or labels alone."""
    return convert(SIMS, source, out)
