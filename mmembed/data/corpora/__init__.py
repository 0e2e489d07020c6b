"""Readers of published corpora: a folder as its archives unpack -> utterances.

Media paths are relative to that folder. Speakers and keys are unique across corpora; a key starts
with the name of its corpus and a dash. Splits are those that a corpus publishes. Where it publishes
none and has people read from a list, no sentence of the `heldout` or `dev` split occurs in the
`train` split, except where there are single digits only (FSDD). A reader's docstring tells why it
does otherwise, or gives none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from mmembed.data.corpora import (
    clips,
    cmu_arctic,
    crema_d,
    emodb,
    emovo,
    fsdd,
    grid,
    hf_dataset,
    librispeech,
    lrs,
    msp_podcast,
    ravdess,
    table,
    urdu,
    vctk,
    voxceleb2,
)
from mmembed.data.example import Utterance

CORPORA: Final[Mapping[str, Callable[[Path], list[Utterance]]]] = {
    "biic_podcast": msp_podcast.read_biic,
    "clips": clips.read,
    "cmu_arctic": cmu_arctic.read,
    "crema_d": crema_d.read,
    "emodb": emodb.read,
    "emovo": emovo.read,
    "fsdd": fsdd.read,
    "grid": grid.read,
    "librispeech": librispeech.read,
    "lrs2": lrs.read_lrs2,
    "lrs3": lrs.read_lrs3,
    "msp_podcast": msp_podcast.read_msp,
    "ravdess": ravdess.read,
    "table": table.read,
    "urdu": urdu.read,
    "vctk": vctk.read,
    "voxceleb2": voxceleb2.read,
}

CONVERTERS: Final[Mapping[str, Callable[[Path, Path], list[Utterance]]]] = {
    "hf_dataset": hf_dataset.convert,
}
"""Readers that write media or features to a second folder, where their rows' paths start."""
