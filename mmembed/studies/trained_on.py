"""What a finished run was trained on: a file in its folder, a line beside every prediction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Final

from mmembed.config import Config, Count, Within, from_dict, read_json
from mmembed.data.manifest.utterance import SENTIMENT_LIMITS, Utterance
from mmembed.embedder.card import NOT_RECORDED, UNSTATED, training_line
from mmembed.errors import CorruptError, UsageError
from mmembed.io.json import write_json
from mmembed.pretraining.pretrain_data import corpus_names

FILE: Final = "trained-on.json"
MOST_NAMED: Final = 3  # of the folders or files that vectors were made of


@dataclass(frozen=True)
class TrainingData(Config):
    """One part of what was trained on.

    Attributes:
        name: of the corpus, by the folder it was prepared in.
        items: clips or texts of split train.
        speakers: of these, as far as they are known; 0 where none is.
        licences: what manifests note of them, the most frequent first.
        languages: likewise.
        kind: what an item is called.
    """

    name: str
    items: Count
    speakers: Count = 0
    licences: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    kind: str = "clips"


@dataclass(frozen=True)
class Learned(Config):
    """What the methods of one variant learned.

    Attributes:
        variant: such as a stream subset.
        targets: names of those that any of its training items is labelled for.
    """

    variant: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class TrainedOn(Config):
    """Everything that was trained on.

    Attributes:
        data: its parts.
        encoder: SHA-256 of the weights of the encoder whose vectors were read, "" = none was.
        learned: what each variant learned; of one that is not named it is not recorded.
        sentiment_limit: the scale of sentiment, [-limit, limit].
    """

    data: tuple[TrainingData, ...] = ()
    encoder: str = ""
    learned: tuple[Learned, ...] = ()
    sentiment_limit: Annotated[float, Within(1, 3)] = SENTIMENT_LIMITS[0]

    def __str__(self) -> str:
        parts = (
            training_line(part.name, part.items, part.kind, part.speakers, part.licences)
            for part in self.data
        )
        return "; ".join(parts) or NOT_RECORDED


def describe(inputs: Sequence[str], rows: Sequence[Utterance], kind: str = "clips") -> TrainingData:
    """One part of the training data from its manifest rows.

    Args:
        inputs: folders or files that they come from.
        rows: of the training items.
        kind: what an item is called.
    """
    licences = Counter(row.licence or UNSTATED for row in rows)
    languages = Counter(row.language or UNSTATED for row in rows)
    names = [*dict.fromkeys(corpus_names(list(inputs)))]
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return TrainingData(
        name=(", ".join(names[:MOST_NAMED]) + more) or "unnamed",
        items=len(rows),
        speakers=len({row.speaker for row in rows if row.speaker}),
        licences=tuple(name for name, _ in licences.most_common()),
        languages=tuple(name for name, _ in languages.most_common()),
        kind=kind,
    )


def write(run: Path, trained_on: TrainedOn) -> None:
    """Keep it in the folder of a run."""
    write_json(run / FILE, asdict(trained_on))


def read(run: Path) -> TrainedOn | None:
    """What `write` kept; None in folders of versions that kept nothing.

    Raises:
        CorruptError: it is damaged.
    """
    try:
        return from_dict(TrainedOn, read_json(run / FILE))
    except FileNotFoundError:
        return None
    except UsageError as error:
        raise CorruptError(f"{run / FILE}: {error}") from None
