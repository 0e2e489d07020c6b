"""CH-SIMS: Chinese clips of movies and shows, 2,281 segments with sentiment, also of each stream.

Yu et al., "CH-SIMS: A Chinese Multimodal Sentiment Analysis Dataset with Fine-grained Annotation of
Modality", ACL 2020. Sentiment lies in [-1, 1]; the scores are the sentiment of text, audio and
video alone.
Checksum: README of github.com/thuiar/MMSA.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mmembed.data.corpora.sentiment import forms
from mmembed.data.corpora.sentiment.corpus import PublishedCorpus
from mmembed.data.manifest.utterance import Utterance

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


def convert(source: Path, out: Path) -> list[Utterance]:
    """CH-SIMS: videos with labels, a pickle of MMSA, or labels alone."""
    return forms.convert(SIMS, source, out)
