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

from mmembed.config import Hz, Seconds
from mmembed.data.example import Example
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.manifest.utterance import EMOTIONS, Labels
from mmembed.embedder import Embedder, Embedding
from mmembed.embedder.clip import Clip
from mmembed.embeddings.search import EmbeddingSearch, SearchResult, Sources
from mmembed.encoder import Encoder
from mmembed.errors import DataError, Stopped, UsageError
from mmembed.features.audio import SAMPLE_RATE
from mmembed.features.video import VIDEO_RATE
from mmembed.report.pictures import picture_url
from mmembed.streams import STREAMS, subset_name
from mmembed.studies.emotion_predictor import EmotionPredictor
from mmembed.studies.training_distance import OUTSIDE

WINDOW: Final[Seconds] = 2.0  # of the clip, from which each point of a curve is predicted
STEP: Final[Seconds] = 0.25  # between points; larger in clips longer than a minute
MAX_POINTS: Final = 240
BATCH_SIZE: Final = 16  # windows
NUM_NEIGHBOURS: Final = 8


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
class ClipEmotion:
    """Sentiment and the six emotions, each in [0, 3], of a whole clip.

    Attributes:
        sentiment: below 0 is negative; None where no training clip was labelled for it.
        emotions: by name, in the order of `EMOTIONS`, those that were learned.
        streams: from which they are predicted, such as "audio+video+text".
        farther_than: fraction of the training clips that are nearer to each other than this clip is
            to them; None where no distances were recorded. See `mmembed.studies.training_distance`.
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
        streams: from which they are predicted: audio and video, if the clip has them.
    """

    times: tuple[Seconds, ...]
    sentiment: tuple[float, ...]
    limit: float
    emotions: Mapping[str, tuple[float, ...]]
    streams: str


@dataclass(frozen=True)
class Neighbour:
    """A near clip and its middle face crop as a data URL, None where there is none."""

    found: SearchResult
    picture: str | None


@dataclass(frozen=True)
class Analysis:
    """One clip; `dataclasses.asdict` of it is JSON.

    Attributes:
        name: the file's.
        seconds: its length.
        streams: all three.
        transcript: normalised words, None where they are not known.
        transcript_from: whether they were given or come from the recogniser.
        words: with their times; () where these are not known.
        emotion: None without a regressor for the clip's streams.
        curves: None without a regressor for its audio and video.
        neighbours: nearest first; () without embeddings.
        trained_on: what the regressor and the encoder were trained on, a line each.
        notes: "streams", "words", "emotion", "curves" or "neighbours" -> why it is missing, or a
            remark on it.
    """

    name: str
    seconds: Seconds
    streams: tuple[Stream, ...]
    transcript: str | None
    transcript_from: Literal["given", "ctc"] | None
    words: tuple[TimedWord, ...]
    emotion: ClipEmotion | None
    curves: Curves | None
    neighbours: tuple[Neighbour, ...]
    notes: Mapping[str, str]
    trained_on: Mapping[str, str] = field(default_factory=dict)


class Analyser:
    """A function from a media file to its `Analysis`.

    Args:
        embedder: the frozen encoder; opens the files.
        predictor: regressors trained on its embeddings; None = no emotion and no curves.
        search: embeddings that it made; None = no neighbours.

    Raises:
        UsageError: another encoder made the embeddings.
    """

    def __init__(
        self,
        embedder: Embedder,
        predictor: EmotionPredictor | None = None,
        search: EmbeddingSearch | None = None,
    ) -> None:
        if search is not None:
            search.check_encoder(embedder.sha256, search.name)
        self.embedder = embedder
        self.predictor = predictor
        self.search = search
        encoder = embedder.encoder
        self._weights = encoder.fusion_weights.tolist() if isinstance(encoder, Encoder) else []
        self._sources = None if search is None else Sources(search.embeddings.metadata)
        self._stopped = threading.Event()

    def __call__(self, path: Path, name: str, text: str | None = None) -> Analysis:
        """Analyse one clip; calls must not overlap.

        Args:
            path: the file.
            name: the user's name of the file.
            text: its words, if they are known.

        Raises:
            DataError: the clip cannot be used; starts with `name`.
            Stopped: `stop` was called.
        """
        notes: dict[str, str] = {}
        example = self._decode(path, name, text)
        self._check_stopped()
        (embedding,) = self.embedder.embed(
            [example], transcribe=self.embedder.listening is not None
        )
        if example.info.face == "full frame":
            notes["streams"] = "no face was found: the encoder got the whole picture"
        words = embedding.aligned
        if isinstance(words, str):
            notes["words"], words = words, ()
        return Analysis(
            name=name,
            seconds=embedding.seconds or 0.0,
            streams=tuple(
                Stream(stream, weight, stream in embedding.streams)
                for stream, weight in zip(STREAMS, self._weights, strict=False)
            ),
            transcript=embedding.transcript,
            transcript_from=embedding.transcript_from,
            words=tuple(TimedWord(*word[:3]) for word in words),
            emotion=self._emotion(embedding, notes),
            curves=self._curves(example, embedding.seconds or 0.0, notes),
            neighbours=self._neighbours(example, embedding, notes),
            notes=notes,
            trained_on=self.trained_on,
        )

    @property
    def trained_on(self) -> Mapping[str, str]:
        """What the regressor and the encoder were trained on, in one line each."""
        regressor = {} if self.predictor is None else {"regressor": self.predictor.run.trained_on}
        return {**regressor, "encoder": self.embedder.trained_on}

    def stop(self) -> None:
        """End the current analysis, in another thread, at its next step."""
        self._stopped.set()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise Stopped("no more clips are analysed")

    def _decode(self, path: Path, name: str, text: str | None) -> Example:
        source = Clip(path, text=text, key="clip").source(STREAMS, self.embedder.face_model)
        (example,) = self.embedder.decoder.load([source])
        if isinstance(example, DataError):
            raise DataError(name, example.reason, example.message)
        return example

    def _emotion(self, embedding: Embedding, notes: dict[str, str]) -> ClipEmotion | None:
        if self.predictor is None:
            notes["emotion"] = "none: the page was started without --regressor"
            return None
        layers = torch.from_numpy(embedding.layers)
        try:
            (labels,) = self.predictor.predict(layers[None], embedding.streams)
        except UsageError as error:
            notes["emotion"] = str(error)
            return None
        sentiment, emotions = _numbers(labels)
        (distance,) = self.predictor.distance(layers[None], embedding.streams)
        emotion = ClipEmotion(sentiment, emotions, subset_name(embedding.streams))
        if distance is None:
            notes["emotion"] = "how far the clip lies from the training clips is not recorded"
            return emotion
        if distance.outside:
            notes["emotion"] = OUTSIDE
        return replace(emotion, farther_than=distance.quantile, outside=distance.outside)

    def _curves(self, example: Example, seconds: Seconds, notes: dict[str, str]) -> Curves | None:
        """From audio and video alone: a window with or without words has another regressor."""
        if self.predictor is None:
            notes["curves"] = "none: the page was started without --regressor"
            return None
        audio_video = example.only(("audio", "video"))
        points = windows(audio_video, seconds)
        labels: list[Labels] = []
        try:
            for first in range(0, len(points), BATCH_SIZE):
                self._check_stopped()
                batch = [window for _, window in points[first : first + BATCH_SIZE]]
                layers = self.embedder.encode(batch).layers
                labels += self.predictor.predict(layers, audio_video.streams)
        except UsageError as error:
            notes["curves"] = str(error)
            return None
        numbers = [_numbers(one) for one in labels]
        return Curves(
            times=tuple(time for time, _ in points),
            sentiment=tuple(sentiment for sentiment, _ in numbers if sentiment is not None),
            limit=self.predictor.sentiment_limit,
            emotions={
                name: tuple(emotions[name] for _, emotions in numbers) for name in numbers[0][1]
            },
            streams=subset_name(audio_video.streams),
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
        hits = self.search.nearest(vector, NUM_NEIGHBOURS)
        found, crops = self._sources.describe(self.search.embeddings, hits, faces=True)
        return tuple(
            Neighbour(one, None if crop is None else picture_url(crop))
            for one, crop in zip(found, crops, strict=True)
        )


def windows(example: Example, seconds: Seconds) -> list[tuple[Seconds, Example]]:
    """Moments evenly spread from a clip's start to its end, and the part of the clip around each.

    Windows end with the shorter stream, so that all have the same streams.

    Args:
        example: audio and video.
        seconds: its length.
    """
    count = min(max(2, math.ceil(seconds / STEP) + 1), MAX_POINTS)
    found = []
    for time in np.linspace(0, seconds, count).tolist():
        part = _part(example, max(0.0, time - WINDOW / 2), time + WINDOW / 2)
        if part.streams == example.streams:
            found.append((time, part))
    return found


def _part(example: Example, start: Seconds, end: Seconds) -> Example:
    def cut(steps: Any, rate: Hz) -> Any:
        return None if steps is None else steps[round(start * rate) : round(end * rate)]

    audio, video = cut(example.audio, SAMPLE_RATE), cut(example.video, VIDEO_RATE)
    return replace(example, audio=audio, video=video)


def _numbers(labels: Labels) -> tuple[float | None, dict[str, float]]:
    """Sentiment and the emotions that were learned."""
    emotions = zip(EMOTIONS, labels.intensities, strict=True)
    return labels.sentiment, {name: value for name, value in emotions if not math.isnan(value)}
