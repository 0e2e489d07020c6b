"""The studies that the fine-tuning program knows, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mmembed.studies.demux import DemuxRun, DemuxStudy
from mmembed.studies.emotion import EmotionRun, EmotionStudy
from mmembed.studies.emotion_queries import EmotionQueriesRun, EmotionQueriesStudy
from mmembed.studies.layer_anchor import LayerAnchorRun, LayerAnchorStudy
from mmembed.studies.sdt import SDTRun, SDTStudy
from mmembed.studies.self_mm import SelfMmRun, SelfMmStudy
from mmembed.studies.study import FinetuneRun, Study

RECIPES: Final[Mapping[str, tuple[type[FinetuneRun], Callable[[Any], Study]]]] = {
    "emotion": (EmotionRun, EmotionStudy),
    "self_mm": (SelfMmRun, SelfMmStudy),
    "sdt": (SDTRun, SDTStudy),
    "demux": (DemuxRun, DemuxStudy),
    "layer_anchor": (LayerAnchorRun, LayerAnchorStudy),
    "emotion_queries": (EmotionQueriesRun, EmotionQueriesStudy),
}
"""Name -> the settings of a run, and what reads its data."""
