"""What the demo's embeddings tell of each part of a clip: of its words, its voice and its face.

    python benchmarks/talkers_parts.py demo

A clip's sentiment is the sum of what its three parts express, and the script of a clip says what
that is. For each stream subset a ridge regression reads each part's valence from the embeddings of
the trained encoder and of the untrained one, by cross-validation over the training speakers (five
folds; the strength is chosen on folds inside). Prints Pearson correlations. Where the untrained
encoder has as much as the trained one, pre-training taught nothing of that part.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from numpy.typing import NDArray

from mmembed.data.corpora.talkers.acting import VALENCE
from mmembed.data.corpora.talkers.clip import write_script
from mmembed.metrics.sentiment import pearson
from mmembed.streams import subset_name
from mmembed.studies.baselines import ridge
from mmembed.studies.embeddings_data import read_folder
from mmembed.studies.probe import PENALTIES
from mmembed.studies.splits import group_folds

SUBSETS = (("audio",), ("video",), ("text",), ("audio", "video", "text"))
PARTS = ("words", "voice", "face")
FOLDS = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Settings:
    """What is read.

    Attributes:
        demo: folder of a finished demo.
    """

    demo: tyro.conf.Positional[Path] = Path("demo")


def main() -> None:
    """A table as in docs/results.md."""
    demo = tyro.cli(Settings, description=__doc__).demo
    seed = json.loads((demo / "corpus" / "talkers.json").read_text())["seed"]
    print(f"| streams | encoder | {' | '.join(PARTS)} | sentiment |\n|---|---|---|---|---|---|")
    for subset in SUBSETS:
        for encoder, folder in (("untrained", "embeddings-untrained"), ("trained", "embeddings")):
            clips = read_folder(
                demo / folder / subset_name(subset), lambda row: row.split == "train"
            )
            truth = np.array([valences(key, seed) for key in clips.keys])
            targets = np.c_[truth, clips.sentiment.numpy()]
            vectors = torch.stack([*clips.steps[""]]).flatten(1).double().numpy()
            speakers = clips.groups(range(len(clips))).names
            read = cross_predict(vectors, targets, np.array(speakers))
            cells = [f"{pearson(t, p):.2f}" for t, p in zip(targets.T, read.T, strict=True)]
            print(f"| {subset_name(subset)} | {encoder} | {' | '.join(cells)} |", flush=True)


def valences(key: str, seed: int) -> list[float]:
    """What the words, the voice and the face of the clip `key` are worth in sentiment."""
    speaker, index = key.removeprefix("talkers-s").split("-")
    clip = write_script(seed, int(speaker), int(index))
    parts = (clip.words, clip.voice, clip.face)
    return [VALENCE[part.feeling] * part.intensity for part in parts]


def cross_predict(vectors: Floats, targets: Floats, speakers: NDArray[np.str_]) -> Floats:
    """Targets (N, C) of each item as told by a reader that never met its speaker."""
    predicted = np.empty_like(targets)
    for held_out in group_folds(speakers, FOLDS):
        train = ~held_out
        inner = np.zeros((len(PENALTIES), int(train.sum()), targets.shape[1]))
        for unseen in group_folds(speakers[train], FOLDS):
            inner[:, unseen] = ridge(
                (vectors[train][~unseen], targets[train][~unseen]),
                vectors[train][unseen],
                PENALTIES,
            )
        errors = ((inner - targets[train]) ** 2).mean(1)  # (strengths, C)
        answers = ridge((vectors[train], targets[train]), vectors[held_out], PENALTIES)
        for column, best in enumerate(errors.argmin(0)):
            predicted[held_out, column] = answers[best, :, column]
    return predicted


if __name__ == "__main__":
    main()
