"""Feature pickles of IEMOCAP and MELD, as DialogueRNN, MMGCN, COSMIC and SDT circulate them.

A pickle is a tuple of dictionaries, dialogue -> one value for each turn, and of collections of
dialogues, which are the splits. `LAYOUTS` lists the layouts in use, which differ in the kinds of
their parts. They are those that these loaders unpack:

    DialogueRNN, COSMIC   github.com/declare-lab/conv-emotion
    MMGCN                 github.com/hujingwen6666/MMGCN
    SDT                   github.com/butterfliesss/SDT

None was checked against an original file.

Text is one vector a turn or four, of which SDT reads the first and others take the mean, after
normalising each. All are kept, as the streams `text`, `text2`, `text3` and `text4` of the
feature files, each of one step; shards carry the first, the others are read from the file itself
by `mmembed.data.feature_files.read_features`.

IEMOCAP: dialogues are named (Ses01F_impro01), speakers are M and F. Without a list of dev, the
first tenth of the training dialogues in alphabetical order is dev: SDT's own loader would take a
tenth too; its program has no dev set and selects on test.
MELD: dialogues are numbered through, from 0 train, from 1039 dev, from 1153 test, and where there
is no list of dev, dev is at the end of train. Speakers are numbers within a dialogue (at most 9),
not names. Keys are those of the reader of the corpus wherever the pickle has the ids of turns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mmembed.data.checks import log_skipped
from mmembed.data.corpora import iemocap, meld
from mmembed.data.corpora.files import fix_latin1
from mmembed.data.feature_files import write_features
from mmembed.data.manifest.utterance import Labels, Utterance
from mmembed.data.untrusted.pickles import read_pickle
from mmembed.errors import DataError

_TEXTS: Final = "text text2 text3 text4"
LAYOUTS: Final = (
    ("iemocap", "ids speakers labels text audio video sentences train test"),
    ("iemocap", f"ids speakers labels {_TEXTS} audio video sentences train test"),
    ("iemocap", f"speakers labels {_TEXTS} sentences train test dev"),
    ("meld", "ids speakers labels text audio sentences train test sentiments"),
    ("meld", "ids speakers labels text audio video sentences train test sentiments"),
    ("meld", f"ids speakers labels {_TEXTS} audio video sentences train test sentiments"),
    ("meld", f"speakers labels sentiments {_TEXTS} sentences train test dev"),
)
"""Corpus and parts, in order: of DialogueRNN and MMGCN, SDT, COSMIC; then of DialogueRNN, MMGCN,
SDT, COSMIC."""

CATEGORIES: Final = {
    "iemocap": ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
    "meld": meld.EMOTIONS,
}
SPLIT_NAMES: Final = ("train", "dev", "test")
STREAMS: Final = ("audio", "video", "text", "text2", "text3", "text4")
FIRST_OF_MELD: Final = {"train": 0, "dev": 1039, "test": 1153}
"""The number of the first dialogue of each split. Source: the clips that a public loader pairs with
these numbers, and the published counts, 1,039, 114 and 280 with one number of train unused."""

MOST_DIALOGUES: Final = 100_000  # MELD has 1433
MOST_SENTIMENTS: Final = 10  # MELD has 3

Fields = Mapping[str, Any]


def convert(source: Path, out: Path) -> list[Utterance]:
    """Feature pickles of IEMOCAP and MELD (DialogueRNN, MMGCN, COSMIC, SDT).

    Writes `out/features/SPLIT.safetensors`; the media of the rows are relative to `out`.

    Args:
        source: the pickle.
        out: folder for the features.

    Raises:
        DataError: no such file, another layout, or a dialogue whose parts do not agree.
    """
    parts = read_pickle(source)
    if (layout := layout_of(parts)) is None:
        found = f"{len(parts)} parts" if isinstance(parts, list) else type(parts).__name__
        raise DataError(
            str(source),
            "layout",
            f"holds {found}, no layout of DialogueRNN, MMGCN, COSMIC or SDT for IEMOCAP or MELD "
            "(9 to 13 parts)",
        )
    corpus, fields = layout[0], dict(zip(layout[1], parts, strict=True))
    try:
        splits = _splits(corpus, fields)
    except (TypeError, ValueError) as error:
        raise DataError(str(source), "layout", f"dialogues of {corpus}: {error}") from None
    if sentiments := _sentiments(fields):
        fields["sentiments"] = sentiments
    else:
        fields.pop("sentiments", None)
    utterances: list[Utterance] = []
    for split, dialogues in splits.items():
        features: list[dict[str, NDArray[np.float32]]] = []
        for dialogue in dialogues:
            try:
                rows = _rows(corpus, fields, split, dialogue, len(features))
                features += [_features(fields, dialogue, turn) for turn in range(len(rows))]
                utterances += rows
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise DataError(str(source), "layout", f"dialogue {dialogue}: {error}") from None
        if features:
            path = out / "features" / f"{split}.safetensors"
            try:
                write_features(path, features)
            except ValueError as error:
                raise DataError(str(source), "layout", str(error)) from None
        broken = [
            f"{split}#{row}: {stream}"
            for row, turn in enumerate(features)
            for stream, x in turn.items()
            if not np.isfinite(x).all()
        ]
        log_skipped(source, broken, "vectors are not finite")
    used = {dialogue for dialogues in splits.values() for dialogue in dialogues}
    left = [str(dialogue) for dialogue in fields["labels"] if dialogue not in used]
    log_skipped(source, left, "dialogues are in no split and are left out")
    return utterances


def layout_of(parts: object) -> tuple[str, list[str]] | None:
    """The corpus and the names of the parts of a pickle, None where it has another layout."""
    if isinstance(parts, list | tuple):
        kinds = ["turns" if isinstance(part, Mapping) else "dialogues" for part in parts]
        for corpus, layout in LAYOUTS:
            names = layout.split()
            if kinds == ["dialogues" if name in SPLIT_NAMES else "turns" for name in names]:
                return corpus, names
    return None


def _splits(corpus: str, fields: Fields) -> dict[str, list[Any]]:
    """Split -> its dialogues, in order."""
    train, test = sorted(fields["train"]), sorted(fields["test"])
    for dialogue in (*train, *test, *fields.get("dev", ())):
        named = isinstance(dialogue, str) and dialogue[3:5] in iemocap.SPLITS
        # No other numbers than MELD's: hostile ones may be slow to look up, see `serialize`.
        if named != (corpus == "iemocap") or not (named or 0 <= int(dialogue) < MOST_DIALOGUES):
            raise ValueError(f"{dialogue!r} is none")
    if "dev" in fields:
        dev = sorted(fields["dev"])
    elif corpus == "iemocap":
        dev = train[: len(train) // 10]
    else:
        dev = [dialogue for dialogue in train if int(dialogue) >= FIRST_OF_MELD["dev"]]
    chosen = set(dev)
    splits = {"train": [x for x in train if x not in chosen], "dev": dev, "test": test}
    both = (set(train) | chosen) & set(test)
    if both:
        raise ValueError(f"{min(both)} is in train and in test")
    return splits


def _rows(corpus: str, fields: Fields, split: str, dialogue: Any, first: int) -> list[Utterance]:
    """The turns of a dialogue; `first` = the row of the first one in the features of its split."""
    labels = [int(label) for label in fields["labels"][dialogue]]
    for part in set(fields) - set(SPLIT_NAMES):
        if len(fields[part][dialogue]) != len(labels):
            raise ValueError(f"{len(labels)} labels, but {len(fields[part][dialogue])} {part}")
    if corpus == "iemocap":
        name, licence = f"iemocap-{dialogue}", iemocap.LICENCE
    else:
        number = int(dialogue) - FIRST_OF_MELD[split]
        if number < 0:
            raise ValueError(f"its number is none of {split}")
        name, licence = f"meld-{split}-dia{number}", meld.LICENCE
    rows = []
    for turn, label in enumerate(labels):
        if not 0 <= label < len(CATEGORIES[corpus]):
            raise ValueError(f"label {label} of turn {turn} is none of {CATEGORIES[corpus]}")
        scores = {}
        if "sentiments" in fields:
            scores[meld.SENTIMENT_CLASS] = fields["sentiments"][dialogue][turn]
        rows.append(
            Utterance(
                key=_key(corpus, fields, name, dialogue, turn),
                media=f"features/{split}.safetensors#{first + turn}",
                transcript=_words(fields["sentences"][dialogue][turn]),
                language="en",
                speaker=_speaker(corpus, name, dialogue, fields["speakers"][dialogue][turn]),
                dialogue=name,
                turn=turn,
                split=split,
                licence=licence,
                labels=Labels(category=CATEGORIES[corpus][label], scores=scores),
            )
        )
    return rows


def _words(sentence: Any) -> str:
    """A sentence; those of Python 2 come as bytes read as Latin-1, and may have been UTF-8."""
    if not isinstance(sentence, str):
        raise ValueError(f"sentence {sentence!r} is no text")
    try:
        return fix_latin1(sentence.encode("latin-1").decode())
    except UnicodeError:
        return fix_latin1(sentence)


def _key(corpus: str, fields: Fields, name: str, dialogue: Any, turn: int) -> str:
    if "ids" not in fields:
        return f"{name}_turn{turn}"
    identity = fields["ids"][dialogue][turn]
    return f"iemocap-{identity}" if corpus == "iemocap" else f"{name}_utt{int(identity)}"


def _speaker(corpus: str, name: str, dialogue: Any, speaker: Any) -> str:
    if corpus == "iemocap":
        if speaker not in ("F", "M"):
            raise ValueError(f"speaker {speaker!r} is neither F nor M")
        return f"iemocap-{dialogue[3:5]}{speaker}"
    number = int(np.argmax(speaker)) if np.ndim(speaker) else int(speaker)
    return f"{name}-speaker{number}"


def _features(fields: Fields, dialogue: Any, turn: int) -> dict[str, NDArray[np.float32]]:
    """Stream -> (1, D)."""
    features = {}
    for stream in STREAMS:
        if stream in fields:
            vector = np.asarray(fields[stream][dialogue][turn], np.float32)
            if vector.ndim != 1:
                raise ValueError(f"{stream} of turn {turn} has the shape {vector.shape}, not (D,)")
            features[stream] = vector[None]
    return features


def _sentiments(fields: Fields) -> dict[Any, list[float]]:
    """The sentiments of the turns of MELD, as numbers, {} where that part is something else.

    In MELD neutral is neutral, joy positive, surprise either, and all other emotions are negative:
    so the emotions show which number is which.
    """
    known = {"neutral": {0.0}, "joy": {1.0}, "surprise": set[float]()}
    names: dict[int, set[float]] = defaultdict(set)
    try:
        for dialogue, labels in fields["labels"].items():
            for label, sentiment in zip(labels, fields["sentiments"][dialogue], strict=True):
                names[int(sentiment)] |= known.get(meld.EMOTIONS[int(label)], {-1.0})
                if len(names) > MOST_SENTIMENTS or len(names[int(sentiment)]) > 1:
                    return {}
        return {
            dialogue: [min(names[int(sentiment)]) for sentiment in fields["sentiments"][dialogue]]
            for dialogue in fields["labels"]
        }
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
