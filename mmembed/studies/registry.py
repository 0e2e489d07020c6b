"""The studies that the fine-tuning program knows, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mmembed.studies.demux import DemuxStudy, demux
from mmembed.studies.emotion import EmotionStudy, emotion
from mmembed.studies.emotion_queries import EmotionQueriesStudy, emotion_queries
from mmembed.studies.layer_anchor import LayerAnchorStudy, layer_anchor
from mmembed.studies.sdt import SDTStudy, sdt
from mmembed.studies.self_mm import SelfMmStudy, self_mm
from mmembed.studies.study import FinetuneRun, Study


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
    "emotion_queries": Recipe(emotion_queries, EmotionQueriesStudy),
}
