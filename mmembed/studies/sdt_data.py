"""Dialogues out of shards: turns with one vector a stream, speakers and classes, as batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from mmembed.batch import UNLABELLED, Batch, Padded
from mmembed.data.dataset import Examples
from mmembed.data.manifest.utterance import Utterance
from mmembed.errors import UsageError
from mmembed.streams import STREAMS
from mmembed.studies.embeddings_data import read_embeddings, single_streams
from mmembed.studies.feature_tensors import Standardise, features_of
from mmembed.studies.groups import ManifestItems
from mmembed.studies.splits import SPLITS, hold_out
from mmembed.studies.text_vectors import text_vectors

HELD_OUT: Final = 0.1  # of the training dialogues, where there is no dev split
GENDERS: Final = {"M": 0, "F": 1}


@dataclass(frozen=True)
class Dialogue(ManifestItems):
    """T turns of one dialogue, in order.

    Attributes:
        streams: stream -> (T, D), zeros where a turn lacks it.
        speaker: (T,) int64, counted from 0 in order of first turn, or 0 = male and 1 = female; -1 =
            not known.
        emotion: (T,) int64 classes or UNLABELLED.
    """

    streams: Mapping[str, Tensor]
    speaker: Tensor
    emotion: Tensor

    @property
    def name(self) -> str:
        return str(self.rows[0].dialogue)

    def alone(self, by_gender: bool = False) -> list[Dialogue]:
        """Each turn as a dialogue of its own, which knows nothing of the others."""
        turns = (self.take([turn]) for turn in range(len(self)))
        if by_gender:  # which tells nothing of other turns
            return list(turns)
        return [replace(turn, speaker=turn.speaker.clamp(max=0)) for turn in turns]


@dataclass(frozen=True)
class Dialogues:
    """All that a study reads.

    Attributes:
        splits: "train", "dev" and "test", each with a labelled turn.
        classes: names in alphabetical order.
        widths: stream -> D.
        num_speakers: the most of a training dialogue; 0 where no speaker is known.
    """

    splits: Mapping[str, Sequence[Dialogue]]
    classes: tuple[str, ...]
    widths: Mapping[str, int]
    num_speakers: int


@dataclass(frozen=True)
class _Turn:
    row: Utterance
    vectors: dict[str, Tensor]  # stream -> (D,), those it has


def to_batch(dialogues: Sequence[Dialogue]) -> Batch:
    """Dialogues as items, turns as steps."""
    return Batch(
        tuple(dialogue.name for dialogue in dialogues),
        {
            name: Padded.stack([dialogue.streams[name] for dialogue in dialogues])
            for name in dialogues[0].streams
        },
        {"turn_emotion": Padded.stack([dialogue.emotion for dialogue in dialogues])},
        {"turn_speaker": Padded.stack([dialogue.speaker for dialogue in dialogues])},
    )


def read_dialogues(
    folders: Sequence[str],
    backbone: str = "",
    embeddings: str = "",
    *,
    by_gender: bool = False,
    standardise: bool = True,
) -> Dialogues:
    """The dialogues of shards: rows with a dialogue, a turn, and a split of `SPLITS`.

    Streams are the features that training turns have, the mean where one has several steps, or the
    mean over all layers of embeddings, with mean 0 and standard deviation 1 over the training turns
    in every column. Without a dev split,
    the first tenth of the training dialogues in alphabetical order is dev. Turns without a
    category, or with one that training does not have, stay as unlabelled turns. Of a dialogue with
    more speakers than any in training, the later ones count as not known.

    Args:
        folders: of shards, or URLs.
        backbone: the text encoder that reads transcripts where there are no text features, see
            `text_vectors`; "" for none.
        embeddings: folder of embedding shards, with single streams, instead of `folders`.
        by_gender: number speakers by their gender, the last letter of their names.
        standardise: otherwise vectors stay as they are.

    Raises:
        UsageError: no dialogues, nothing to read of them, no labels, no gender, or a backbone for
            nothing.
    """
    if not folders and not embeddings:
        raise UsageError(
            "no data: give --shards DIR [DIR ...], folders of prepared dialogues, or --embeddings "
            "DIR, made of them by extract"
        )
    if folders and embeddings:
        raise UsageError("--shards and --embeddings: give one of them")
    where = embeddings or ", ".join(folders)
    turns = _embedded_turns(Path(embeddings)) if embeddings else _read_turns(folders, where)
    if not turns:
        raise UsageError(
            f"{where}: no dialogues: rows need dialogue, turn, and split {', '.join(SPLITS)}"
        )
    if backbone:
        _read_transcripts(turns, backbone, where)
    splits = _grouped(turns)
    if not {"train", "test"} <= set(splits):
        raise UsageError(f"{where}: dialogues of the splits {', '.join(splits)}; needs train, test")
    if "dev" not in splits:
        if len(splits["train"]) < 2:
            raise UsageError(
                f"{where}: one training dialogue alone and no split dev; another is needed to "
                "choose epochs by"
            )
        chosen = hold_out(sorted(splits["train"]), HELD_OUT)
        splits["dev"] = {name: splits["train"].pop(name) for name in chosen}
    training = [turn for part in splits["train"].values() for turn in part]
    classes = sorted({turn.row.labels.category or "" for turn in training} - {""})
    if len(classes) < 2:
        found = f"only {classes[0]}" if classes else "none"
        raise UsageError(f"{where}: training needs two classes in labels.category, found {found}")
    scales = _scales(turns, training, where)
    if not standardise:
        scales = {name: Standardise.nothing(len(one.mean)) for name, one in scales.items()}
    numbers = _genders if by_gender else _speakers
    num_speakers = max(max(numbers(part)) + 1 for part in splits["train"].values())
    if by_gender and not num_speakers:
        raise UsageError(f"{where}: no speaker's name ends in M or F, as those of IEMOCAP do")
    num_speakers = max(num_speakers, len(GENDERS)) if by_gender else num_speakers
    read = {
        split: [
            _dialogue(part, scales, classes, num_speakers, numbers(part)) for part in parts.values()
        ]
        for split, parts in splits.items()
    }
    for split, dialogues in read.items():
        if not any((dialogue.emotion != UNLABELLED).any() for dialogue in dialogues):
            raise UsageError(f"{where}: no turn of split {split} has a class of training")
    widths = {name: len(scale.mean) for name, scale in scales.items()}
    return Dialogues(read, tuple(classes), widths, num_speakers)


def _read_turns(folders: Sequence[str], where: str) -> list[_Turn]:
    turns = []
    for example in Examples(folders, lambda columns: columns["split"] in SPLITS):
        if _is_turn(example.utterance):
            features = features_of(example, where).items()
            vectors = {name: x.mean(0) for name, x in features if len(x)}
            turns.append(_Turn(example.utterance, vectors))
    return turns


def _embedded_turns(folder: Path) -> list[_Turn]:
    folders = single_streams(folder)
    clips = read_embeddings(folders, lambda row: row.split in SPLITS and _is_turn(row))
    turns = [_Turn(row, {}) for row in clips.utterances]
    for stream in folders:
        for row, layers in zip(clips.rows[stream].tolist(), clips.steps[stream], strict=True):
            turns[row].vectors[stream] = layers.mean(0)
    return turns


def _is_turn(row: Utterance) -> bool:
    return row.dialogue is not None and row.turn is not None


def _read_transcripts(turns: Sequence[_Turn], backbone: str, where: str) -> None:
    """Give turns a text vector."""
    if any("text" in turn.vectors for turn in turns):
        raise UsageError(f"{where}: there are text features already; leave --backbone out")
    spoken = [turn for turn in turns if _words(turn.row)]
    if not spoken:
        raise UsageError(f"{where}: no turn has a transcript for --backbone {backbone} to read")
    vectors = text_vectors(backbone, [_words(turn.row) for turn in spoken])
    for turn, vector in zip(spoken, vectors, strict=True):
        turn.vectors["text"] = vector


def _words(row: Utterance) -> str:
    return (row.transcript or "").strip()


def _grouped(turns: Sequence[_Turn]) -> dict[str, dict[str, list[_Turn]]]:
    """Split -> dialogue -> its turns in order."""
    splits: dict[str, dict[str, list[_Turn]]] = {}
    for turn in sorted(turns, key=lambda turn: turn.row.turn or 0):
        parts = splits.setdefault(str(turn.row.split), {})
        parts.setdefault(str(turn.row.dialogue), []).append(turn)
    return {split: dict(sorted(parts.items())) for split, parts in splits.items()}


def _scales(
    turns: Sequence[_Turn], training: Sequence[_Turn], where: str
) -> dict[str, Standardise]:
    """Of each stream that training turns have."""
    scales = {}
    for name in STREAMS:
        widths = {len(turn.vectors[name]) for turn in turns if name in turn.vectors}
        if len(widths) > 1:
            raise UsageError(f"{where}: {name} vectors have the widths {sorted(widths)}")
        if vectors := [turn.vectors[name] for turn in training if name in turn.vectors]:
            scales[name] = Standardise.by(torch.stack(vectors))
    if not scales and any(_words(turn.row) for turn in training):
        raise UsageError(
            f"{where}: transcripts but no features: give --backbone FOLDER, a text encoder to "
            "read them"
        )
    if not scales:
        raise UsageError(f"{where}: the training turns have neither features nor transcripts")
    return scales


def _dialogue(
    turns: Sequence[_Turn],
    scales: Mapping[str, Standardise],
    classes: Sequence[str],
    num_speakers: int,
    numbers: Sequence[int],
) -> Dialogue:
    streams = {stream: torch.zeros(len(turns), len(scale.mean)) for stream, scale in scales.items()}
    for stream, scale in scales.items():
        for vector, turn in zip(streams[stream], turns, strict=True):
            if stream in turn.vectors:
                vector.copy_(scale(turn.vectors[stream]))
    speakers = [number if number < num_speakers else -1 for number in numbers]
    classes_by_name = {category: number for number, category in enumerate(classes)}
    emotion = [classes_by_name.get(turn.row.labels.category or "", UNLABELLED) for turn in turns]
    rows = tuple(turn.row for turn in turns)
    return Dialogue(rows, streams, torch.tensor(speakers), torch.tensor(emotion))


def _genders(turns: Sequence[_Turn]) -> list[int]:
    """0 = male, 1 = female, -1 = not known."""
    return [GENDERS.get((turn.row.speaker or "?")[-1], -1) for turn in turns]


def _speakers(turns: Sequence[_Turn]) -> list[int]:
    """Counted from 0 in order of first turn, -1 = not known."""
    names = list(dict.fromkeys(turn.row.speaker for turn in turns if turn.row.speaker))
    return [names.index(turn.row.speaker) if turn.row.speaker else -1 for turn in turns]
