"""Readers of published corpora: a folder as its archives unpack -> utterances.

Media paths are relative to that folder. Speakers and keys are unique across corpora; a key starts
with the name of its corpus and a dash. Splits are those that a corpus publishes. Where it publishes
none and its speakers read from a list, no sentence of the `heldout` or `dev` split occurs in the
`train` split, except for single digits (FSDD). Where a reader does otherwise, or gives no splits,
its docstring says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mmembed.data.corpora import (
    clips,
    cmu_arctic,
    crema_d,
    dialogue_pickles,
    fsdd,
    goemotions,
    grid,
    hf_dataset,
    iemocap,
    librispeech,
    lrs,
    meld,
    msp_podcast,
    named_speech,
    ravdess,
    semeval2018,
    table,
    vctk,
    voxceleb2,
    wds,
    xed,
)
from mmembed.data.corpora.sentiment import published
from mmembed.data.manifest.utterance import Utterance

CORPORA: Final[Mapping[str, Callable[[Path], list[Utterance]]]] = {
    "biic_podcast": msp_podcast.read_biic, "clips": clips.read, "cmu_arctic": cmu_arctic.read,
    "crema_d": crema_d.read, "emodb": named_speech.read_emodb, "emovo": named_speech.read_emovo,
    "fsdd": fsdd.read, "goemotions": goemotions.read, "grid": grid.read, "iemocap": iemocap.read,
    "librispeech": librispeech.read, "lrs2": lrs.read_lrs2, "lrs3": lrs.read_lrs3,
    "meld": meld.read, "msp_podcast": msp_podcast.read_msp, "ravdess": ravdess.read,
    "semeval2018": semeval2018.read, "table": table.read, "urdu": named_speech.read_urdu,
    "vctk": vctk.read, "voxceleb2": voxceleb2.read, "wds": wds.read, "xed": xed.read,
}  # fmt: skip

CONVERTERS: Final[Mapping[str, Callable[[Path, Path], list[Utterance]]]] = {
    "dialogue_pickles": dialogue_pickles.convert, "hf_dataset": hf_dataset.convert,
    "mosei": published.convert_mosei, "mosei_words": published.convert_mosei_words,
    "mosi": published.convert_mosi, "mosi_words": published.convert_mosi_words,
    "ravdess_faces": ravdess.convert_faces, "sims": published.convert_sims,
}  # fmt: skip
"""Readers that write media or features to a second folder, where their rows' paths start."""
