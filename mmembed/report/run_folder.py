"""What a run folder holds, read into memory; every part of it may be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmembed.config import read_json
from mmembed.data.manifest.utterance import EMOTIONS
from mmembed.data.shards.layout import ShardSet
from mmembed.io.json import dumps, read_lines
from mmembed.report.score_table import Score, as_float
from mmembed.streams import stream_subsets, subset_name
from mmembed.studies.results import read_results

Json = dict[str, Any]

MAP_POINTS = 600  # more make the map slower, not clearer
SUBSETS = [subset_name(streams) for streams in stream_subsets()]
UNSEEN = ("test", "heldout")
COMMON = "sentiment, clips of all subsets"  # a test's name where subsets hold different clips


@dataclass(frozen=True)
class Points:
    """Embeddings of some utterances and what is known of each.

    Attributes:
        subset: the streams they were made from, such as "audio+video".
        vectors: (N, D).
        speakers: N names, "" where unknown.
        sentiment: (N,) in [-3, 3], NaN where unknown.
        emotion: N names of the strongest (or acted) emotion, "" where unknown.
        splits: the splits that the utterances belong to.
    """

    subset: str
    vectors: NDArray[np.float32]
    speakers: list[str]
    sentiment: NDArray[np.float64]
    emotion: list[str]
    splits: list[str]


class RunFolder:
    """The parts of a run folder; a missing part is empty or None.

    Attributes:
        pretraining_alone: whether it is the folder of `pretrain`, not of a whole pipeline.

    Raises:
        CorruptError: a file is there but damaged.
    """

    def __init__(self, path: Path) -> None:
        alone = (path / "metrics.jsonl").is_file()
        pretraining = path if alone else path / "pretrain"
        self.config = read_part(pretraining / "run.json")
        self.metrics = list(read_lines(pretraining / "metrics.jsonl"))
        self.evaluation = read_part(pretraining / "evaluation.json")
        self.emotion = read_part(path / "emotion" / "results.json", read_results)
        self.predictions = read_part(path / "emotion" / "predictions.json")
        self.summary = read_part(path / "results.json")
        self.points = _read_points(path / "embeddings")
        self.is_empty = not any(vars(self).values())
        self.pretraining_alone = alone

    def split(self, name: str) -> list[Json]:
        """The lines of metrics.jsonl that belong to one split."""
        return [line for line in self.metrics if line.get("split") == name]

    @property
    def scores(self) -> dict[str, Json]:
        """The tables "sentiment" and "emotions" of all stream subsets on the same clips."""
        return _tables(self.emotion)

    @property
    def untrained(self) -> dict[str, Json]:
        """The same tables of the same probe on the untrained encoder."""
        return _tables((self.emotion.get("controls") or {}).get("untrained") or {})

    @property
    def on_common_clips(self) -> bool:
        """Whether stream subsets hold different clips, and scores are of those that all have."""
        return COMMON in (self.emotion.get("tests") or {})


def _tables(results: Json) -> dict[str, Json]:
    tests = results.get("tests") or {}
    sentiment = tests.get("sentiment") or tests.get(COMMON) or {}
    return {"sentiment": sentiment, "emotions": results.get("emotions") or {}}


def variants_of(table: Json) -> dict[str, Json]:
    """Stream subset -> its scores, single streams first."""
    variants = table.get("variants") or {}
    return {name: variants[name] or {} for name in in_stream_order(variants)}


def correlations(table: Json) -> dict[str, Score]:
    """Stream subset -> its correlation, of a table of sentiment."""
    variants = variants_of(table)
    return {name: Score.of(scores.get("correlation")) for name, scores in variants.items()}


def in_stream_order(names: Iterable[str]) -> list[str]:
    """Names of stream subsets, single streams first; other names after them."""
    return sorted(names, key=lambda name: SUBSETS.index(name) if name in SUBSETS else len(SUBSETS))


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as `("optim.lr", "0.0003")` pairs."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value if isinstance(value, str) else dumps(value)


def read_part(path: Path, read: Callable[[Path], Json] = read_json) -> Json:
    """An object; {} where there is no such file."""
    return read(path) if path.is_file() else {}


def _read_points(folder: Path) -> Points | None:
    """Utterances never trained on where there are any, evenly picked, of the fullest subset."""
    subsets = [name for name in SUBSETS if (folder / name).is_dir()]
    if not subsets:
        return None
    subset = subsets[-1]
    shards = ShardSet(folder / subset)
    # Reading is a seek and a few kilobytes a record; the first pass is capped all the same.
    step = max(1, len(shards) // (8 * MAP_POINTS))
    members = [shards.read(index).members for index in range(0, len(shards), step)]
    records = [(m["json"], m["pooled.npy"]) for m in members if "pooled.npy" in m]
    unseen = [record for record in records if record[0].get("split") in UNSEEN]
    chosen = unseen or records
    if not chosen:
        return None
    rows = np.linspace(0, len(chosen) - 1, min(len(chosen), MAP_POINTS)).astype(int)
    picked = [chosen[row] for row in rows]
    labels = [meta.get("labels") or {} for meta, _ in picked]
    return Points(
        subset=subset,
        vectors=np.stack([vector for _, vector in picked]).astype(np.float32),
        speakers=[str(meta.get("speaker") or "") for meta, _ in picked],
        sentiment=np.array([as_float(label.get("sentiment")) for label in labels]),
        emotion=[strongest(label) for label in labels],
        splits=sorted({str(meta.get("split") or "no split") for meta, _ in picked}),
    )


def strongest(labels: Mapping[str, Any]) -> str:
    """The acted emotion, or the one of highest intensity, "none" if all are 0, "" if unknown."""
    intensities = labels.get("emotions")
    if labels.get("category"):
        return str(labels["category"])
    if not intensities:
        return ""
    known = [-1.0 if x is None else x for x in intensities]
    highest = int(np.argmax(known))
    return EMOTIONS[highest] if known[highest] > 0 else "none"
