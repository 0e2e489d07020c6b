"""The studies that the fine-tuning program knows, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mmembed.recipes.conversation import SDTStudy, sdt
from mmembed.recipes.crosslingual import LayerAnchorStudy, layer_anchor
from mmembed.recipes.emotion import EmotionStudy, emotion
from mmembed.recipes.multilabel import DemuxStudy, demux
from mmembed.recipes.queries import QueriesStudy, emotion_queries
from mmembed.recipes.sentiment import SelfMmStudy, self_mm
from mmembed.recipes.study import FinetuneRun, Study


@dataclass(frozen=True)
class Recipe:
    """A study to be.

    Attributes:
        run: makes the settings, which the command line may change.
        open: reads the data of a run.
    """

    run: Callable[[], FinetuneRun]
    open: Callable[[Any], Study]


RECIPES: Final[Mapping[str, Recipe]] = {
    "emotion": Recipe(emotion, EmotionStudy),
    "self_mm": Recipe(self_mm, SelfMmStudy),
    "sdt": Recipe(sdt, SDTStudy),
    "demux": Recipe(demux, DemuxStudy),
    "layer_anchor": Recipe(layer_anchor, LayerAnchorStudy),
    "emotion_queries": Recipe(emotion_queries, QueriesStudy),
}
