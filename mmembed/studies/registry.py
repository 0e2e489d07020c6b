"""The studies that the fine-tuning program knows, by the name of their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mmembed.studies.demux import DemuxStudy
from mmembed.studies.emotion import EmotionStudy
from mmembed.studies.emotion_queries import EmotionQueriesStudy
from mmembed.studies.layer_anchor import LayerAnchorStudy
from mmembed.studies.sdt import SDTStudy
from mmembed.studies.self_mm import SelfMmStudy
from mmembed.studies.study import Study

STUDIES: Final[Mapping[str, Callable[[Any], Study]]] = {
    "emotion": EmotionStudy,
    "self_mm": SelfMmStudy,
    "sdt": SDTStudy,
    "demux": DemuxStudy,
    "layer_anchor": LayerAnchorStudy,
    "emotion_queries": EmotionQueriesStudy,
}
"""Name, as in `mmembed.settings.finetune.RUNS` -> what reads the data of such a run."""
