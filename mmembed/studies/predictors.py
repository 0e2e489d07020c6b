"""The folder of a trained run, opened to predict by it; the predictors are in files of their own.

The studies of texts and of emotion words import scikit-learn, which takes a second. Predictions of
sentiment do not wait for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from mmembed.config import from_dict, read_json
from mmembed.embedder.card import NOT_RECORDED
from mmembed.errors import CorruptError, MmembedError
from mmembed.settings.finetune import FinetuneRun
from mmembed.studies import trained_on
from mmembed.studies.trained_on import TrainedOn

Run = TypeVar("Run", bound=FinetuneRun)


@dataclass(frozen=True)
class TrainedRun(Generic[Run]):
    """What `mmembed finetune RECIPE --out FOLDER` left.

    Attributes:
        folder: of the run.
        settings: those of training, apart from its seeds, have their defaults.
        data: what it was trained on; None where older versions did not record it.
    """

    folder: Path
    settings: Run
    data: TrainedOn | None

    @property
    def trained_on(self) -> str:
        """What it was trained on, in one line; "not recorded" where that is not known."""
        return NOT_RECORDED if self.data is None else str(self.data)

    def weights(self, variant: str) -> list[Path]:
        """The weights of a variant's methods, one file for each seed."""
        seeds = self.settings.loop.seeds
        return [self.folder / variant / f"seed-{seed}.safetensors" for seed in seeds]


def load_run(folder: Path, kind: type[Run]) -> TrainedRun[Run]:
    """Read the settings of a run, and what it was trained on.

    Args:
        folder: of the run.
        kind: the settings of its recipe.

    Raises:
        CorruptError: it holds no run of that recipe, or a damaged one.
    """
    recipe: str = vars(kind)["name"]
    try:
        settings = read_json(folder / "run.json")
        if settings.get("name") != recipe:
            raise CorruptError(f"{folder}: holds no run of {recipe}; run.json is of another")
        # How the methods were trained is not needed, and older versions had other settings for it.
        settings.pop("optim", None)
        if isinstance(loop := settings.get("loop"), dict):
            settings["loop"] = {name: loop[name] for name in ("seeds",) if name in loop}
        run = from_dict(kind, settings)
        data = trained_on.read(folder)
    except FileNotFoundError as error:
        raise CorruptError(
            f"{folder}: holds no run of {recipe}, {error.filename} is missing"
        ) from None
    except MmembedError as error:
        what = str(error).removeprefix(f"{folder}: ").removeprefix(f"{folder}/")
        raise CorruptError(f"{folder}: not a usable run of {recipe}: {what}") from None
    if not run.loop.seeds:
        raise CorruptError(f"{folder}: not a usable run of {recipe}: run.json names no seed")
    return TrainedRun(folder, run, data)
