"""Embeddings as studies read them: clips joined by key over the folders of their stream subsets.

A clip is one row, whatever folders hold it and in whatever order; a subset that does not hold it
has no steps of it. What cannot be right is refused in one line: a key that stands twice, folders of
different encoders or layers, a clip whose labels differ from folder to folder, sentiment on two
scales.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmembed.config import read_json
from mmembed.data.manifest.utterance import EMOTIONS, SENTIMENT_LIMITS, Utterance, utterance_of
from mmembed.data.shards.layout import ShardSet
from mmembed.embeddings.read import read_arrays
from mmembed.errors import CorruptError, UsageError
from mmembed.streams import STREAMS, subset_name
from mmembed.studies.groups import Groups, group_items

Part = Literal["layers", "frames", "pooled"]
Rows = NDArray[np.int64]

NAN: Final = float("nan")


@dataclass(frozen=True)
class EmbeddedClips:
    """Clips of one corpus, in the order of the last folder; what others alone hold comes after.

    Attributes:
        utterances: N manifest rows, with all that is known of the clips but their media.
        steps: stream subset -> one float32 tensor (T, W) for each clip that it holds, in the order
            of its folder. T is L of layers, any number of frames, and 1 of pooled.
        rows: stream subset -> (n,) which of the N clips these are.
        layers: L names; () where the folders name none.
        encoder: SHA-256 of its weights; "" where the folders name none.
    """

    utterances: tuple[Utterance, ...]
    steps: Mapping[str, Sequence[Tensor]]
    rows: Mapping[str, Rows]
    layers: tuple[str, ...]
    encoder: str

    def __len__(self) -> int:
        return len(self.utterances)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """N keys, all different."""
        return tuple(row.key for row in self.utterances)

    @cached_property
    def splits(self) -> NDArray[np.str_]:
        """(N,) names, "" where there is none."""
        return np.array([row.split or "" for row in self.utterances], np.str_)

    @cached_property
    def categories(self) -> NDArray[np.str_]:
        """(N,) one emotion each, "" where it is not known."""
        return np.array([row.labels.category or "" for row in self.utterances], np.str_)

    @cached_property
    def sentiment(self) -> Tensor:
        """(N,) float32, NaN = unlabelled."""
        values = [row.labels.sentiment for row in self.utterances]
        return torch.tensor([NAN if x is None else x for x in values], dtype=torch.float32)

    @cached_property
    def limit(self) -> float:
        """Sentiment is rated in [-limit, limit]; the same for all clips, see `read_embeddings`."""
        labels = [row.labels for row in self.utterances if row.labels.sentiment is not None]
        return (labels[0].sentiment_limit if labels else None) or SENTIMENT_LIMITS[0]

    @cached_property
    def emotions(self) -> Tensor:
        """(N, E) float32 intensities in [0, 3], NaN = unlabelled."""
        values = [row.labels.intensities for row in self.utterances]
        return torch.tensor(values, dtype=torch.float32).reshape(-1, len(EMOTIONS))

    @cached_property
    def positions(self) -> dict[str, Rows]:
        """Stream subset -> (N,) the position of each clip in its steps, -1 = it lacks the clip."""
        positions = {}
        for subset, rows in self.rows.items():
            positions[subset] = np.full(len(self), -1, np.int64)
            positions[subset][rows] = np.arange(len(rows))
        return positions

    def present(self, subset: str) -> NDArray[np.bool_]:
        """(N,) whether the subset holds the clip."""
        return self.positions[subset] >= 0

    def values(self, subset: str, rows: Sequence[int] | Rows) -> list[Tensor]:
        """The steps of some clips, T = 0 where the subset does not hold them."""
        steps = self.steps[subset]
        nothing = steps[0][:0]
        return [steps[at] if at >= 0 else nothing for at in self.positions[subset][rows].tolist()]

    def groups(self, rows: Sequence[int] | Rows) -> Groups:
        """Those of some clips: speakers, where unknown dialogues, else each clip by itself."""
        return group_items([self.utterances[row] for row in rows])


def subset_folders(folder: Path) -> dict[str, Path]:
    """Stream subset -> folder of its embedding shards, smallest subsets first.

    Raises:
        UsageError: there is none, one is not finished, or two are of the same streams.
        CorruptError: a manifest is damaged.
    """
    folders: dict[str, Path] = {}
    for path in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        manifest = path / "manifest.json"
        if not manifest.is_file():
            if next(path.glob("shard-*.tar"), None) is not None:
                raise UsageError(
                    f"{path}: not finished, it has no manifest.json; the same extract command "
                    "again goes on"
                )
            continue
        streams = read_json(manifest).get("streams")
        if not isinstance(streams, list) or not streams or not set(streams) <= set(STREAMS):
            raise CorruptError(f"{manifest}: names no streams; these are no embeddings")
        subset = subset_name(streams)
        if subset in folders:
            raise UsageError(f"{folders[subset]} and {path}: both of {subset}; remove one of them")
        folders[subset] = path
    if not folders:
        raise UsageError(f"{folder}: holds no embedding shards; make them with extract")
    return dict(sorted(folders.items(), key=lambda pair: (pair[0].count("+"), pair[0])))


def single_streams(folder: Path) -> dict[str, Path]:
    """Those of `subset_folders` that are of one stream.

    Raises:
        UsageError: there is none.
    """
    folders = {s: path for s, path in subset_folders(folder).items() if s in STREAMS}
    if not folders:
        raise UsageError(f"{folder}: holds no single stream; extract with --streams every")
    return folders


def read_embeddings(
    folders: Mapping[str, Path | str],
    keep: Callable[[Utterance], bool] = lambda row: True,
    part: Part = "layers",
) -> EmbeddedClips:
    """Join the embeddings of one corpus by key.

    Args:
        folders: stream subset -> folder of its shards, see `subset_folders`.
        keep: which clips are wanted; vectors of others are not read.
        part: what their steps are.

    Raises:
        DataError: a folder holds no shards, or a key twice.
        UsageError: folders that do not go together; no such part.
        CorruptError: a record is damaged.
    """
    opened = {subset: ShardSet(folder) for subset, folder in folders.items()}
    encoder = same_encoder(
        {s.folder: str(s.manifest.get("encoder_sha256") or "") for s in opened.values()}
    )
    layers = _same_layers(opened)
    read = {subset: _read_rows(shards) for subset, shards in opened.items()}
    together: dict[str, Utterance] = {}
    first: dict[str, str] = {}
    for subset in reversed(read):
        for row in read[subset]:
            if row.key not in together:
                together[row.key], first[row.key] = row, subset
            else:
                both = folders[first[row.key]], folders[subset]
                together[row.key] = _agreed(together[row.key], row, *both)
    kept = [row for row in together.values() if keep(row)]
    check_scale(next(iter(folders.values())), [r for r in kept if r.labels.sentiment is not None])
    number = {row.key: position for position, row in enumerate(kept)}
    rows, steps = {}, {}
    for subset, shards in opened.items():
        wanted = [at for at, row in enumerate(read[subset]) if row.key in number]
        rows[subset] = np.array([number[read[subset][at].key] for at in wanted], np.int64)
        steps[subset] = _read_steps(shards, wanted, part, len(layers))
    return EmbeddedClips(tuple(kept), steps, rows, layers, encoder)


def read_folder(
    folder: Path | str, keep: Callable[[Utterance], bool] = lambda row: True, part: Part = "layers"
) -> EmbeddedClips:
    """As `read_embeddings`, of one folder of shards; its only subset is named ""."""
    return read_embeddings({"": folder}, keep, part)


def same_encoder(encoders: Mapping[Any, str]) -> str:
    """The one encoder of all folders.

    Args:
        encoders: folder -> SHA-256 of the encoder's weights, "" where it names none.

    Raises:
        UsageError: there are several.
    """
    if len({*encoders.values()}) > 1:
        each = ", ".join(f"{folder} of {sha[:12] or 'none'}" for folder, sha in encoders.items())
        raise UsageError(f"embeddings of different encoders: {each}")
    return next(iter(encoders.values()), "")


def _same_layers(opened: Mapping[str, ShardSet]) -> tuple[str, ...]:
    (first, layers), *rest = [(s.folder, s.manifest.get("layers") or []) for s in opened.values()]
    for folder, others in rest:
        if others != layers:
            ours, theirs = (", ".join(map(str, names)) or "none" for names in (layers, others))
            raise UsageError(
                f"{first} and {folder}: hold different layers, {ours:.60} and {theirs:.60}; "
                "extract them alike"
            )
    return tuple(map(str, layers))


def _read_rows(shards: ShardSet) -> list[Utterance]:
    rows = []
    for index in range(len(shards)):
        record = shards.read(index, ["json"])
        try:
            described = record.members["json"]
            if "utterance" in described:  # of what is prepared, see `mmembed.data.media.load`
                raise UsageError(
                    f"{shards.folder}: no embeddings: mmembed extract makes some of it"
                )
            rows.append(utterance_of(record.key, described, record.meta))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            why = str(error).splitlines()[0]
            raise CorruptError(f"{shards.folder}: {record.key} is no embedding: {why}") from None
    return rows


def _agreed(one: Utterance, other: Utterance, here: Path | str, there: Path | str) -> Utterance:
    """What two folders say of a clip; a dialogue that older records lack is filled in."""
    dialogue = one.dialogue or other.dialogue
    ours, theirs = (
        {
            "split": row.split,
            "speaker": row.speaker,
            **vars(row.labels),
            "dialogue": row.dialogue or dialogue,
        }
        for row in (one, other)
    )
    for name, value in ours.items():
        if value != theirs[name]:
            raise UsageError(
                f"{here} and {there}: {name} of {one.key} is {value!r:.40} in the first, "
                f"{theirs[name]!r:.40} in the other; extract both from the same manifest"
            )
    return one if one.dialogue else replace(one, dialogue=dialogue)


def check_scale(folder: Path | str, rows: Sequence[Utterance]) -> None:
    """Refuse rows that are rated on different scales: they are no labels of one study.

    How strong a feeling is, in [-1, 1] or [-3, 3], and which it is are such scales.
    """
    scales: dict[str, str] = {}
    for row in rows:
        limit = row.labels.sentiment_limit or SENTIMENT_LIMITS[0]
        scale = "a category alone"
        if row.labels.sentiment is not None:
            scale = f"a sentiment in [-{limit:g}, {limit:g}]"
        scales.setdefault(scale, row.key)
    if len(scales) > 1:
        each = ", ".join(f"{key} has {scale}" for scale, key in scales.items())
        raise UsageError(f"{folder}: labels on different scales: {each}; study them apart")


def _read_steps(shards: ShardSet, wanted: Sequence[int], part: Part, layers: int) -> list[Tensor]:
    """Those of the records at these places."""
    steps = []
    for record, read in read_arrays(shards, wanted, part):
        array = read[None] if part == "pooled" else read
        if array.ndim != 2 or (part == "layers" and layers not in (0, len(array))):
            raise CorruptError(
                f"{shards.folder}: {part} of {record.key} is {array.shape}, not of {layers} "
                "layers; mmembed verify tells more"
            )
        if not np.isfinite(array).all():
            raise CorruptError(f"{shards.folder}: {part} of {record.key} is not finite")
        steps.append(torch.from_numpy(array.astype(np.float32)))
    return steps
