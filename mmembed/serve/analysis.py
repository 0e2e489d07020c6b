"""Everything that the page shows of one clip."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from mmembed.batch import STREAMS, subset_name
from mmembed.config import Hz, Seconds
from mmembed.data.example import Example
from mmembed.data.inputs import load_all
from mmembed.data.manifest.utterance import EMOTIONS, Labels
from mmembed.data.media.pool import Decoder
from mmembed.embedder import Embedder, Embedding
from mmembed.embedder.clip import Clip
from mmembed.embeddings.search import EmbeddingSearch, Found, Sources
from mmembed.errors import DataError, Stopped, UsageError
from mmembed.features.audio import FEATURE_RATE
from mmembed.features.video import VIDEO_RATE
from mmembed.report.pictures import picture_url
from mmembed.studies.emotion_predictor import EmotionPredictor
from mmembed.studies.training_distance import OUTSIDE

WINDOW: Final[Seconds] = 2.0  # of the clip that a point of a curve is of
STEP: Final[Seconds] = 0.25  # from point to point, more in clips of over a minute
MOST_POINTS: Final = 240
WINDOWS_AT_ONCE: Final = 16  # in a batch
NEIGHBOURS: Final = 8


@dataclass(frozen=True)
class Stream:
    """A stream of the encoder.

    Attributes:
        name: of `STREAMS`.
        weight: of the encoder's weighted sum, the same for all clips.
        present: whether the clip has it.
    """

    name: str
    weight: float
    present: bool


@dataclass(frozen=True)
class TimedWord:
    """A word and when it is said, in seconds."""

    text: str
    start: Seconds
    end: Seconds


@dataclass(frozen=True)
class Mood:
    """Sentiment and the six emotions, each in [0, 3], of a whole clip.

    Attributes:
        sentiment: below 0 is negative; None where no training clip was labelled for it.
        emotions: by name, in the order of `EMOTIONS`, those that were learned.
        streams: that were judged, "audio+video+text".
        farther_than: share of the training clips that lie nearer to each other than this clip to
            them; None where nothing is known of them. See `mmembed.studies.training_distance`.
        outside: whether that is more than usual; None likewise.
    """

    sentiment: float | None
    emotions: Mapping[str, float]
    streams: str
    farther_than: float | None = None
    outside: bool | None = None


@dataclass(frozen=True)
class Curves:
    """The same over time, at N moments.

    Attributes:
        times: (N,) seconds. Each point is of `WINDOW` seconds around, less at the clip's ends.
        sentiment: (N,) in [-limit, limit], () where it was not learned.
        limit: of the scale of sentiment.
        emotions: by name, (N,) each.
        streams: that were judged: sound and pictures, as far as the clip has them.
    """

    times: tuple[Seconds, ...]
    sentiment: tuple[float, ...]
    limit: float
    emotions: Mapping[str, tuple[float, ...]]
    streams: str


@dataclass(frozen=True)
class Neighbour:
    """A clip nearby and its middle face crop as a data URL, None where there is none."""

    found: Found
    picture: str | None


@dataclass(frozen=True)
class Analysis:
    """One clip; `dataclasses.asdict` of it is JSON.

    Attributes:
        name: the file's.
        seconds: that it lasts.
        streams: all three.
        transcript: normalised words, None where they are not known.
        transcript_from: whether they were given or are what the recogniser heard.
        words: with their times; () where these are not known.
        mood: None without a regressor for the clip's streams.
        curves: None without a regressor for its sound and pictures.
        neighbours: nearest first; () without embeddings.
        trained_on: what the regressor and the encoder were trained on, a line each.
        notes: "streams", "words", "mood", "curves" or "neighbours" -> why it is missing, or what
            to know of it.
    """

    name: str
    seconds: Seconds
    streams: tuple[Stream, ...]
    transcript: str | None
    transcript_from: Literal["given", "ctc"] | None
    words: tuple[TimedWord, ...]
    mood: Mood | None
    curves: Curves | None
    neighbours: tuple[Neighbour, ...]
    notes: Mapping[str, str]
    trained_on: Mapping[str, str] = field(default_factory=dict)


class Analyser:
    """A function from a media file to its `Analysis`.

    Args:
        embedder: the frozen encoder.
        decoder: opens the files; its process stays, so that clips after the first come quickly.
        predictor: regressors trained on its embeddings; None = neither mood nor curves.
        search: embeddings that it made; None = no neighbours.

    Raises:
        UsageError: another encoder made the embeddings.
    """

    def __init__(
        self,
        embedder: Embedder,
        decoder: Decoder,
        predictor: EmotionPredictor | None = None,
        search: EmbeddingSearch | None = None,
    ) -> None:
        if search is not None and search.encoder_sha256 != embedder.sha256:
            raise UsageError(
                f"{search.name}: made by another encoder (SHA-256 "
                f"{search.encoder_sha256[:12]}...) than this one ({embedder.sha256[:12]}...)"
            )
        self.embedder = embedder
        self.decoder = decoder
        self.predictor = predictor
        self.search = search
        self._sources = None if search is None else Sources(search.embeddings.made)
        self._stopped = threading.Event()

    def __call__(self, path: Path, name: str, text: str | None = None) -> Analysis:
        """Analyse one clip; not to be called twice at once.

        Args:
            path: the file.
            name: what the user calls it.
            text: what is said in it, if that is known.

        Raises:
            DataError: the clip cannot be used; starts with `name`.
            Stopped: `stop` was called.
        """
        notes: dict[str, str] = {}
        example = self._decode(path, name, text)
        self._go_on()
        (embedding,) = self.embedder.embed(
            [example], transcribe=self.embedder.recogniser is not None
        )
        if example.notes.get("face") == "full frame":
            notes["streams"] = "no face was found: the encoder saw the whole picture"
        if isinstance(embedding.aligned, str):
            notes["words"] = embedding.aligned
        return Analysis(
            name=name,
            seconds=embedding.seconds or 0.0,
            streams=self._streams(embedding),
            transcript=embedding.transcript,
            transcript_from=embedding.transcript_from,
            words=_words(embedding),
            mood=self._mood(embedding, notes),
            curves=self._curves(example, embedding.seconds or 0.0, notes),
            neighbours=self._neighbours(example, embedding, notes),
            notes=notes,
            trained_on=self.trained_on,
        )

    @property
    def trained_on(self) -> Mapping[str, str]:
        """What is used and what it was trained on, in one line each."""
        encoder = {"encoder": self.embedder.trained_on}
        known = {} if self.predictor is None else {"regressor": self.predictor.trained_on}
        return {**known, **encoder}

    def stop(self) -> None:
        """Have the analysis at hand, in another thread, end at its next step."""
        self._stopped.set()

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise Stopped("no more clips are analysed")

    def _decode(self, path: Path, name: str, text: str | None) -> Example:
        source = Clip(path, text=text, key="clip").source(STREAMS, self.embedder.face_model)
        (example,) = load_all([source], self.decoder)
        if isinstance(example, DataError):
            said = str(example).removeprefix(f"{example.item}: ")
            raise DataError(name, example.reason, said)
        return example

    def _streams(self, embedding: Embedding) -> tuple[Stream, ...]:
        weights = self.embedder.encoder.fusion_weights.tolist()
        return tuple(
            Stream(stream, weight, stream in embedding.streams)
            for stream, weight in zip(STREAMS, weights, strict=True)
        )

    def _mood(self, embedding: Embedding, notes: dict[str, str]) -> Mood | None:
        if self.predictor is None:
            notes["mood"] = "none: the page was started without --regressor"
            return None
        layers = torch.from_numpy(embedding.layers)
        try:
            (labels,) = self.predictor.predict(layers[None], embedding.streams)
        except UsageError as error:
            notes["mood"] = str(error)
            return None
        sentiment, emotions = _numbers(labels)
        (distance,) = self.predictor.distance(layers[None], embedding.streams)
        mood = Mood(sentiment, emotions, subset_name(embedding.streams))
        if distance is None:
            notes["mood"] = "how far the clip lies from the training clips is not recorded"
            return mood
        if distance.outside:
            notes["mood"] = OUTSIDE
        return replace(mood, farther_than=distance.quantile, outside=distance.outside)

    def _curves(self, example: Example, seconds: Seconds, notes: dict[str, str]) -> Curves | None:
        """From sound and pictures alone: a word more or less would switch to another regressor."""
        if self.predictor is None:
            notes["curves"] = "none: the page was started without --regressor"
            return None
        perceived = example.only(("audio", "video"))
        points = windows(perceived, seconds)
        labels: list[Labels] = []
        try:
            for first in range(0, len(points), WINDOWS_AT_ONCE):
                self._go_on()
                batch = [window for _, window in points[first : first + WINDOWS_AT_ONCE]]
                layers = self.embedder.encode(batch).layers
                labels += self.predictor.predict(layers, perceived.streams)
        except UsageError as error:
            notes["curves"] = str(error)
            return None
        numbers = [_numbers(one) for one in labels]
        _, learned = numbers[0]
        return Curves(
            times=tuple(time for time, _ in points),
            sentiment=tuple(sentiment for sentiment, _ in numbers if sentiment is not None),
            limit=self.predictor.sentiment_limit,
            emotions={
                name: tuple(held[name] for _, held in numbers)
                for name in EMOTIONS
                if name in learned
            },
            streams=subset_name(perceived.streams),
        )

    def _neighbours(
        self, example: Example, embedding: Embedding, notes: dict[str, str]
    ) -> tuple[Neighbour, ...]:
        if self.search is None or self._sources is None:
            notes["neighbours"] = "none: the page was started without --embeddings"
            return ()
        try:
            query, note = self.search.comparable(example)
        except UsageError as error:
            notes["neighbours"] = str(error)
            return ()
        if note is not None:
            notes["neighbours"] = note
        vector = embedding.pooled
        if query.streams != embedding.streams:
            vector = self.embedder.encode([query]).pooled[0].numpy()
        hits = self.search.nearest(vector, NEIGHBOURS)
        found, crops = self._sources.describe(self.search.embeddings, hits, pictures=True)
        return tuple(
            Neighbour(one, None if crop is None else picture_url(crop))
            for one, crop in zip(found, crops, strict=True)
        )


def windows(example: Example, seconds: Seconds) -> list[tuple[Seconds, Example]]:
    """Moments evenly spread from a clip's start to its end, and what is around each.

    Where one of its streams has ended, there is no more window: all have the same streams.

    Args:
        example: sound and pictures.
        seconds: that it lasts.
    """
    count = min(max(2, math.ceil(seconds / STEP) + 1), MOST_POINTS)
    found = []
    for time in np.linspace(0, seconds, count).tolist():
        part = _part(example, max(0.0, time - WINDOW / 2), time + WINDOW / 2)
        if part.streams == example.streams:
            found.append((time, part))
    return found


def _part(example: Example, start: Seconds, end: Seconds) -> Example:
    def cut(steps: Any, rate: Hz) -> Any:
        return None if steps is None else steps[round(start * rate) : round(end * rate)]

    audio, video = cut(example.audio, FEATURE_RATE), cut(example.video, VIDEO_RATE)
    return replace(example, audio=audio, video=video)


def _numbers(labels: Labels) -> tuple[float | None, dict[str, float]]:
    """Sentiment and the emotions that were learned."""
    emotions = zip(EMOTIONS, labels.intensities, strict=True)
    return labels.sentiment, {name: value for name, value in emotions if not math.isnan(value)}


def _words(embedding: Embedding) -> tuple[TimedWord, ...]:
    if isinstance(embedding.aligned, str):
        return ()
    return tuple(TimedWord(word.text, word.start, word.end) for word in embedding.aligned)
