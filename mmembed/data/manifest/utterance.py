"""One row of a manifest: where an utterance is, what is known of it, and both as plain JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final
from urllib.parse import quote, urlsplit, urlunsplit

from mmembed.config import Seconds
from mmembed.data.manifest.timed_words import TimedWord, check_words, parse_words
from mmembed.io.json import finite_number, shown
from mmembed.streams import STREAMS

SPLITS: Final = ("train", "dev", "test", "heldout")
"""`heldout`: utterances never trained on, by speakers of the training split (closed-set tasks)."""

EMOTIONS: Final = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""The order of the CMU-MOSEI SDK; each in [0, 3]."""

LATEST: Final[Seconds] = 1e8
"""No medium goes on for three years: later times are mistakes."""

MOST_TURNS: Final = 1 << 53

SENTIMENT_LIMITS: Final = (3.0, 1.0)
"""The scales of sentiment whose scores have conventions: of CMU-MOSEI and CMU-MOSI, of CH-SIMS."""


@dataclass(frozen=True)
class Labels:
    """What is known of an utterance's emotion.

    Attributes:
        sentiment: in [-3, 3], or in [-1, 1] where `sentiment_limit` says so; or None.
        emotions: intensities in the order of `EMOTIONS`, each in [0, 3], or None; None among them
            is an emotion that is not labelled.
        category: one emotion ("neutral", "calm", "happy", ...), or None.
        present: names of all emotions that several may hold of ("joy", "optimism"), () = none of
            those asked for; None = not annotated.
        sentiment_limit: 1 where the corpus rates sentiment in [-1, 1], as CH-SIMS does, which is
            scored in its own way; 3 or None where it rates in [-3, 3], as CMU-MOSEI does.
        scores: anything else that is a number, on the corpus' own scale, such as "valence",
            "arousal", "dominance", or "sentiment_audio" for what the voice alone expresses.
    """

    sentiment: float | None = None
    emotions: tuple[float | None, ...] | None = None
    category: str | None = None
    present: tuple[str, ...] | None = None
    sentiment_limit: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sentiment_limit not in (None, *SENTIMENT_LIMITS):
            raise ValueError(f"sentiment_limit {self.sentiment_limit}: must be 1 or 3")
        limit = self.sentiment_limit or SENTIMENT_LIMITS[0]
        if self.sentiment is not None and not -limit <= self.sentiment <= limit:
            raise ValueError(f"sentiment {self.sentiment}: must lie in [-{limit:g}, {limit:g}]")
        if self.emotions is not None and (
            len(self.emotions) != len(EMOTIONS)
            or not all(x is None or 0 <= x <= 3 for x in self.emotions)
        ):
            raise ValueError(
                f"emotions {shown(self.emotions)}: {len(EMOTIONS)} values in [0, 3], in the order "
                f"{', '.join(EMOTIONS)}"
            )
        for name in (self.category, *(self.present or ()), *self.scores):
            if name is not None:
                _check_text("a label", name)
        for name, score in self.scores.items():
            if not math.isfinite(score):
                raise ValueError(f"score {name} is {score}: must be a finite number")

    @property
    def intensities(self) -> tuple[float, ...]:
        """Of all `EMOTIONS`, NaN where one is not labelled."""
        emotions = self.emotions or (None,) * len(EMOTIONS)
        return tuple(math.nan if x is None else x for x in emotions)


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest: where an utterance is and what is known of it.

    Attributes:
        key: unique, portable, without dots.
        media: where the media is: a path, absolute or relative to the manifest (bytes that are not
            UTF-8 as Python names them, byte 0xE9 as U+DCE9); a URL; a member of an archive
            ("videos.tar#KEY.mp4"); a row of precomputed features ("train.safetensors#12", see
            `mmembed.data.feature_files`); None for text alone.
        start: seconds into the media file.
        end: seconds, None = to its end.
        transcript: the words spoken, as written by the corpus, or None.
        language: ISO 639-1, or None.
        streams: those it is known to have; None = not looked at yet.
        speaker: unique across corpora ("ravdess-01"), or None.
        dialogue: the conversation it belongs to, unique across corpora, or None.
        turn: its place in the dialogue, counted from 0, or None.
        split: one of `SPLITS`, or None where the corpus names none.
        licence: a note on what may be done with it ("CC BY 4.0", "research only"), or None.
        labels: emotion labels.
        words: those of the transcript in its order, each with the time in which it is spoken; None
            where that is not known. Case and punctuation may differ, and one of these may be
            several words of the transcript ("New York").
    """

    key: str
    media: str | None
    start: float = 0.0
    end: float | None = None
    transcript: str | None = None
    language: str | None = None
    streams: tuple[str, ...] | None = None
    speaker: str | None = None
    dialogue: str | None = None
    turn: int | None = None
    split: str | None = None
    licence: str | None = None
    labels: Labels = field(default_factory=Labels)
    words: tuple[TimedWord, ...] | None = None

    def __post_init__(self) -> None:
        if not self.key.isprintable() or any(c in self.key for c in "./\\ ") or not self.key:
            raise ValueError(
                f"key {shown(self.key)}: must not be empty or hold dots, slashes, spaces or "
                "control characters"
            )
        if self.media is not None:
            _check_media(self.media)
        for name in ("transcript", "language", "speaker", "dialogue", "licence"):
            if (text := getattr(self, name)) is not None:
                _check_text(name, text)
        if not 0 <= self.start <= LATEST or not (self.end is None or self.start < self.end):
            raise ValueError(f"start {self.start} and end {self.end}: 0 <= start < end, in seconds")
        if self.end is not None and not self.end <= LATEST:
            raise ValueError(f"end {self.end}: at most {LATEST:.0f} seconds")
        if self.split is not None and self.split not in SPLITS:
            what = f"split {shown(self.split)} of {self.key[:60]}"
            raise ValueError(f"{what}: one of {', '.join(SPLITS)}")
        if self.streams is not None and not set(self.streams) <= set(STREAMS):
            raise ValueError(f"streams {shown(self.streams)}: of {', '.join(STREAMS)}")
        if self.turn is not None and not 0 <= self.turn < MOST_TURNS:
            raise ValueError(f"turn {shown(self.turn)}: counts from 0, to less than {MOST_TURNS}")
        if self.words is not None:
            for word in self.words:
                _check_text("words", word.text)
            lasts = LATEST if self.end is None else self.end - self.start
            check_words(self.words, self.transcript, lasts)


def _check_media(media: str) -> None:
    """Refuse, with a ValueError, what cannot be the name of a file or a URL."""
    if "\0" in media:
        raise ValueError(f"media holds a NUL character: {shown(media)}")
    try:
        os.fsencode(media)
    except UnicodeEncodeError:
        raise ValueError(f"media holds half a character (a surrogate): {shown(media)}") from None
    if "://" in media:
        try:
            _check_text("media", media)
            _ = urlsplit(media).port
        except ValueError as error:
            raise ValueError(f"media {shown(media)} is no URL ({error})") from None


def _check_text(name: str, text: str) -> None:
    """Refuse, with a ValueError, what no UTF-8 file or column can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds half a character (a surrogate): {shown(text)}") from None


def portable_key(name: str) -> str:
    """Any name as a key: ASCII letters, digits, - and _ stay, the rest is percent-encoded.

    Different names give different keys; `urllib.parse.unquote` gives the name back.
    """
    return quote(os.fsencode(name), safe="").replace(".", "%2E").replace("~", "%7E")


_FIELDS: Final = tuple(field.name for field in fields(Utterance))
_LABELS: Final = tuple(field.name for field in fields(Labels))
_NUMBERS: Final = ("start", "end", "sentiment", "sentiment_limit")
_NAMES: Final = ("streams", "present")  # lists of strings
_PLAIN: Final = Utterance(key="-", media=None)


def to_row(utterance: Utterance) -> dict[str, object]:
    """An utterance as plain JSON values; fields that hold their default are left out."""
    row = {"key": utterance.key, **_changed(utterance, _PLAIN)}
    if "labels" in row:
        row["labels"] = _changed(utterance.labels, _PLAIN.labels)
    return row


def from_row(row: object) -> Utterance:
    """The inverse of `to_row`.

    Raises:
        ValueError: one line saying which field is wrong and what is allowed.
    """
    values = _checked(row, _FIELDS, "a manifest row")
    if values.get("key") is None:
        raise ValueError("a manifest row needs a key")
    if values.get("start", 0.0) is None:
        raise ValueError("start must be a number, found null")
    labels = Labels(**_checked(values.get("labels", {}), _LABELS, "labels"))
    return Utterance(**{"media": None, **values, "labels": labels})


def _changed(item: Utterance | Labels, plain: Utterance | Labels) -> dict[str, object]:
    values = {field.name: getattr(item, field.name) for field in fields(item)}
    return {
        name: _plain(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value != getattr(plain, name)
    }


def _plain(values: tuple[Any, ...]) -> list[object]:
    return [asdict(x) if isinstance(x, TimedWord) else x for x in values]


def _checked(row: object, allowed: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise ValueError(f"{what} must be a JSON object, found {shown(row)}")
    unknown = [name for name in row if name not in allowed]
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        names = ", ".join(shown(name).strip("'") for name in unknown[:3]) + more
        raise ValueError(f"unknown field {names}; allowed are {', '.join(allowed)}")
    return {name: _converted(name, value) for name, value in row.items()}


def _converted(name: str, value: Any) -> Any:
    """A field as `Utterance` and `Labels` have it."""
    if name == "scores":
        if not isinstance(value, Mapping):
            raise ValueError(f"scores must be an object of numbers, found {shown(value)}")
        return {key: finite_number(f"score {shown(key)}", score) for key, score in value.items()}
    if value is None or name == "labels":
        return value
    if name == "words":
        return parse_words(value)
    if name == "emotions":
        if not isinstance(value, list):
            allowed = f"a list of {len(EMOTIONS)} values in [0, 3]"
            raise ValueError(f"emotions must be {allowed}, found {shown(value)}")
        return tuple(None if x is None else finite_number(name, x) for x in value)
    if name in _NUMBERS:
        return finite_number(name, value)
    if name in _NAMES:
        if not isinstance(value, list) or not all(isinstance(x, str) for x in value):
            raise ValueError(f"{name} must be a list of strings, found {shown(value)}")
        return tuple(value)
    if name == "turn":
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"turn must be a whole number, found {shown(value)}")
    elif not isinstance(value, str):
        raise ValueError(f"{name} must be a string, found {shown(value)}")
    return value


ROW: Final = tuple(name for name in _FIELDS if name not in ("key", "streams", "words"))
"""Names of the fields that a record repeats."""


def row_of(utterance: Utterance) -> dict[str, object]:
    """The row of an embedded clip, as the JSON of its record holds it.

    All fields of `Utterance` stand there by their names, but for three: the key is the record's,
    and `streams` and `words` are those that were embedded. `labels` is null where there is none,
    `media` has nothing secret.
    """
    written = to_row(utterance)
    plain = {name: getattr(utterance, name) for name in ROW if name != "labels"}
    media = utterance.media and as_text(without_secrets(utterance.media))
    return {**plain, "media": media, "labels": written.get("labels")}


def utterance_of(
    key: str, described: Mapping[str, Any], meta: Mapping[str, Any] | None = None
) -> Utterance:
    """The inverse of `row_of`, as far as a record tells: those of older versions hold less.

    Args:
        key: of the record.
        described: its JSON.
        meta: what the index holds of it: where the JSON does not name split or speaker.

    Raises:
        ValueError: one line saying which field is wrong and what is allowed.
    """
    known = {name: value for name, value in (meta or {}).items() if name in ("split", "speaker")}
    known |= {name: described[name] for name in ROW if name in described}
    held = {name: value for name, value in known.items() if value is not None}
    return from_row({"key": key, **held})


def without_secrets(media: str) -> str:
    """A URL without what may be secret: user and password, and all that follows a `?`."""
    if "://" not in media:
        return media
    try:
        parts = urlsplit(media)
    except ValueError:  # no URL, but what stands before the @ may be secret all the same
        return media[: media.index("://") + 3] + "..."
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def as_text(name: str) -> str:
    """The name of a file as text: each byte that is not UTF-8 as %XX."""
    if name.isascii():
        return name
    return "".join(f"%{ord(c) & 255:02X}" if "\udc80" <= c <= "\udcff" else c for c in name)
