"""EmoBox (Ma et al., Interspeech 2024, arXiv 2406.07162): published folds, a head on frames.

The frames of a clip are normalised over time and width together, (T, D) at once. The head is
Linear(D, 256), ReLU, mean over time, Linear; Adam at 1e-4, batches of 32, gradients cut to length
5. The authors' README trains 100 epochs, which is the default here; their configuration files say
20. (The README has 128 hidden units, the configuration files 256.) Scores are weighted accuracy
(the fraction that is right), unweighted accuracy (mean recall) and macro F1, mean over the folds.

Not followed: the authors raise the learning rate over 10 epochs and let it fall to 0, keep a fifth
of the training part for validation and test every epoch. Here the rate is constant, all training
clips are learned from, and the last epoch is tested.

The folds are a table with the columns `file` (the corpus' own name of a clip, without ending),
`emotion` and `test_folds` (the folds in whose test part it is, separated by spaces or semicolons;
in all other folds it is a training clip). Its emotions are the classes.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.metrics.bootstrap import count_groups
from mmembed.protocols.heads import train_and_predict
from mmembed.protocols.protocol import EmotionProtocol, TestedFold
from mmembed.studies.embeddings_data import EmbeddedClips
from mmembed.studies.probe import Names

HIDDEN: Final = 256
EPOCHS: Final = 100
GRADIENT_NORM: Final = 5.0
COLUMNS: Final = ("file", "emotion", "test_folds")


@dataclass(frozen=True)
class Listed:
    """A clip of a table of folds: its emotion, and the folds in whose test part it is."""

    emotion: str
    test_folds: frozenset[str]


class FrameHead(nn.Module):
    """Linear, ReLU, mean over time, Linear.

    Args:
        width: D of the frames.
        classes: C.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.before = nn.Linear(width, HIDDEN)
        self.after = nn.Linear(HIDDEN, classes)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Scores (B, C) of frames (T, D) of B clips, one after another, of these lengths (B,)."""
        hidden = self.before(frames).relu_()
        # The mean of each clip is one row of a matrix: as a product it costs next to nothing.
        ends = lengths.cumsum(0)[:, None]
        begins, place = ends - lengths[:, None], torch.arange(len(frames))
        shares = ((place >= begins) & (place < ends)) / lengths[:, None]
        scores: Tensor = self.after(shares @ hidden)
        return scores


@dataclass(frozen=True)
class EmoBox(EmotionProtocol):
    """See the module.

    Attributes:
        folds_file: the table.
        epochs: passes over the training clips.
        seed: of the heads.
    """

    name = "emobox"
    about = (
        f"EmoBox (arXiv 2406.07162): its folds; Linear({HIDDEN}), ReLU, mean over time, Linear on "
        "the frames of the last layer, normalised over (T, D)"
    )
    part = "frames"

    folds_file: Path
    epochs: int = EPOCHS
    seed: int = 0

    @cached_property
    def listed(self) -> Mapping[str, Listed]:
        """Name of a clip -> what the table says of it."""
        return read_folds(self.folds_file)

    def class_of(self, row: Utterance) -> str:
        """The emotion that the table gives; "" where it does not list the clip."""
        name = self.name_of(row)
        return self.listed[name].emotion if name else ""

    def name_of(self, row: Utterance) -> str:
        """The clip's name in the table, "" where it has none.

        It is the stem of the medium, else the key, or the key without what is before its first
        hyphens: of "emodb-03a01Fa" also "03a01Fa".
        """
        names = [PurePosixPath(row.media).stem] if row.media else []
        parts = row.key.split("-")
        names += ["-".join(parts[first:]) for first in range(len(parts))]
        return next((name for name in names if name in self.listed), "")

    def notes(self, kept: Sequence[Utterance], left_out: Sequence[Utterance]) -> list[str]:
        """Clips that the table lacks or gives no class, and those of it that are not here."""
        notes = []
        bare = sum(bool(self.name_of(row)) for row in left_out)
        if unlisted := len(left_out) - bare:
            notes.append(f"{count_groups(unlisted, 'clip')} not in the list of folds left out")
        if bare:
            notes.append(f"{count_groups(bare, 'clip')} without a class left out")
        here = {self.name_of(row) for row in (*kept, *left_out)}
        if absent := len(self.listed.keys() - here):
            notes.append(f"{absent:,} of {len(self.listed):,} clips of the list are not here")
        folds = frozenset[str]().union(*(one.test_folds for one in self.listed.values()))
        tested = frozenset[str]().union(*(self._tested(row) for row in kept))
        if empty := sorted(folds - tested):
            notes.append(f"without a test clip here, left out: fold {', '.join(empty)}")
        return notes

    def folds(self, clips: EmbeddedClips, labels: Names) -> list[TestedFold]:
        """Those of the table that have test clips here.

        Raises:
            UsageError: two clips have one name, or a fold has no training clip here.
        """
        names = [self.name_of(row) for row in clips.utterances]
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise UsageError(f"{self.folds_file}: {twice[0]} is the name of several clips here")
        frames = [nn.functional.layer_norm(one, one.shape) for one in clips.steps[""]]
        width = frames[0].shape[1]
        tested = [self._tested(row) for row in clips.utterances]
        folds = []
        for fold in sorted({one for some in tested for one in some}, key=lambda n: (len(n), n)):
            held_out = np.array([fold in some for some in tested])
            train, test = np.flatnonzero(~held_out), np.flatnonzero(held_out)
            if not len(train):
                raise UsageError(f"{self.folds_file}: fold {fold} has no training clip here")
            predicted = train_and_predict(
                lambda classes: FrameHead(width, classes),
                frames,
                labels,
                train,
                test,
                gradient_norm=GRADIENT_NORM,
                epochs=self.epochs,
                seed=self.seed,
                fold=fold,
            )
            folds.append(TestedFold(train, test, predicted, fold))
        if not folds:
            raise UsageError(f"{self.folds_file}: no clip here is in the test part of a fold")
        return folds

    def _tested(self, row: Utterance) -> frozenset[str]:
        """The folds in whose test part a listed clip is."""
        return self.listed[self.name_of(row)].test_folds


def read_folds(path: Path) -> dict[str, Listed]:
    """Read a table of folds.

    Raises:
        UsageError: it is missing, no such table, or lists a name twice.
    """
    listed: dict[str, Listed] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if not {*COLUMNS} <= {*(reader.fieldnames or ())}:
                raise UsageError(f"{path}: needs the columns {', '.join(COLUMNS)}")
            for row in reader:
                name, emotion, folds = ((row[column] or "").strip() for column in COLUMNS)
                if not name or name in listed:
                    what = f"lists {name} twice" if name else "has a row without a file"
                    raise UsageError(f"{path}: {what}, line {reader.line_num}")
                listed[name] = Listed(emotion, frozenset(re.findall(r"[^\s;]+", folds)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: cannot be read as a table of folds: {error}") from None
    return listed
