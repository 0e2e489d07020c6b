"""Readers of published corpora: a folder as its archives unpack -> utterances.

Media paths are relative to that folder. Speakers and keys are unique across corpora, and no
sentence of a `heldout` or `dev` split occurs in the `train` split of the same corpus, except where
a corpus has single digits only (FSDD).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mmembed.data.corpora import (
    cmu_arctic,
    dialogue_pickles,
    emodb,
    emovo,
    fsdd,
    goemotions,
    grid,
    iemocap,
    meld,
    mosei,
    mosi,
    ravdess,
    semeval2018,
    sims,
    text_tables,
    xed,
)
from mmembed.data.example import Utterance

CORPORA: Final[Mapping[str, Callable[[Path], list[Utterance]]]] = {
    "cmu_arctic": cmu_arctic.read,
    "emodb": emodb.read,
    "emovo": emovo.read,
    "fsdd": fsdd.read,
    "goemotions": goemotions.read,
    "grid": grid.read,
    "iemocap": iemocap.read,
    "meld": meld.read,
    "ravdess": ravdess.read,
    "semeval2018": semeval2018.read,
    "text": text_tables.read,
    "xed": xed.read,
}

CONVERTERS: Final[Mapping[str, Callable[[Path, Path], list[Utterance]]]] = {
    "dialogue_pickles": dialogue_pickles.convert,
    "mosei": mosei.convert,
    "mosei_words": mosei.convert_words,
    "mosi": mosi.convert,
    "mosi_words": mosi.convert_words,
    "sims": sims.convert,
}
"""Importers that write precomputed features: (source, out) -> utterances, media relative to out."""
