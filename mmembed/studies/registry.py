"""The studies that the fine-tuning program knows, by the name of their settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from mmembed.settings.finetune import SelfMmRun
from mmembed.settings.papers import SelfMmPaperRun
from mmembed.studies.demux import DemuxStudy
from mmembed.studies.emotion import EmotionStudy
from mmembed.studies.emotion_queries import EmotionQueriesStudy
from mmembed.studies.layer_anchor import LayerAnchorStudy
from mmembed.studies.sdt import SDTStudy
from mmembed.studies.self_mm import SelfMmBase, SelfMmStudy
from mmembed.studies.self_mm_paper import SelfMmPaperStudy
from mmembed.studies.study import Study


def _self_mm(run: SelfMmRun | SelfMmPaperRun) -> SelfMmBase:
    return SelfMmPaperStudy(run) if isinstance(run, SelfMmPaperRun) else SelfMmStudy(run)


STUDIES: Final[Mapping[str, Callable[[Any], Study]]] = {
    "emotion": EmotionStudy,
    "self_mm": _self_mm,
    "sdt": SDTStudy,
    "demux": DemuxStudy,
    "layer_anchor": LayerAnchorStudy,
    "emotion_queries": EmotionQueriesStudy,
}
"""Name, as in `mmembed.settings.finetune.RUNS` -> what reads the data of such a run."""
