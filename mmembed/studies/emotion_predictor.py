"""From a clip to sentiment and emotions: a frozen encoder and the regressors trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from mmembed.batch import Batch, Padded
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import EMOTIONS, SENTIMENT_LIMITS, Labels
from mmembed.embedder import Embedder
from mmembed.errors import CorruptError, UsageError
from mmembed.methods.emotion import EmotionRegressor
from mmembed.nn.weights import read_module
from mmembed.settings.finetune import EmotionRun
from mmembed.streams import stream_subsets, subset_name
from mmembed.studies.predictors import TrainedRun, load_run
from mmembed.studies.training_distance import FOLDER, DistanceScore, TrainingDistances

EMOTION_RANGE: Final = (0.0, 3.0)
TARGETS: Final = ("sentiment", *EMOTIONS)


@dataclass(frozen=True)
class EmotionPredictor:
    """Encoder and regressors of a run; predictions are means over the run's seeds.

    Attributes:
        embedder: the frozen encoder.
        run: what the regressors were trained on.
        regressors: stream subset -> one for each seed.
        distances: stream subset -> distances of its training clips; none of runs of older versions.
    """

    embedder: Embedder
    run: TrainedRun[EmotionRun]
    regressors: Mapping[str, Sequence[EmotionRegressor]]
    distances: Mapping[str, TrainingDistances]

    @property
    def sentiment_limit(self) -> float:
        """Sentiment is predicted in [-limit, limit], on the scale that was trained on."""
        return SENTIMENT_LIMITS[0] if self.run.data is None else self.run.data.sentiment_limit

    def targets(self, subset: str) -> tuple[str, ...]:
        """Those of `TARGETS` that a subset's regressors learned; all where it is not recorded."""
        learned = () if self.run.data is None else self.run.data.learned
        return next((one.targets for one in learned if one.variant == subset), TARGETS)

    @classmethod
    def from_run(cls, run: Path) -> EmotionPredictor:
        """Load `run/pretrain/encoder` and `run/emotion`; see `from_folder`."""
        embedder = Embedder.from_pretrained(run / "pretrain" / "encoder")
        return cls.from_folder(embedder, run / "emotion")

    @classmethod
    def from_folder(cls, embedder: Embedder, folder: Path) -> EmotionPredictor:
        """Load what `mmembed finetune emotion --out FOLDER` left, for an encoder that is loaded.

        Raises:
            CorruptError: a part is missing or damaged.
            UsageError: the regressors were trained on vectors of another encoder.
        """
        run = load_run(folder, EmotionRun)
        if run.data is not None and run.data.encoder not in ("", embedder.sha256):
            raise UsageError(
                f"{folder}: was trained on vectors of another encoder (SHA-256 "
                f"{run.data.encoder[:12]}...) than this one ({embedder.sha256[:12]}...)"
            )
        config = run.settings.method
        layers, width = len(embedder.encoder.layer_names), 2 * embedder.encoder.layer_width
        if (config.layers, config.width) != (layers, width):
            raise UsageError(
                f"{folder}: was trained on {config.layers} layers of {config.width}, the encoder "
                f"has {layers} of {width}; it is another"
            )
        regressors = {
            subset: [
                read_module(lambda: EmotionRegressor(config), path).eval().requires_grad_(False)
                for path in run.weights(subset)
            ]
            for subset in map(subset_name, stream_subsets())
            if (folder / subset).is_dir()
        }
        if not regressors:
            raise CorruptError(f"{folder}: there are no weights of any stream subset")
        distances = {
            subset: TrainingDistances.read(path, layers * width)
            for subset in regressors
            if (path := folder / FOLDER / f"{subset}.safetensors").exists()
        }
        return cls(embedder, run, regressors, distances)

    def with_distance(self, example: Example) -> tuple[Labels, DistanceScore | None]:
        """Sentiment and emotions of an example, clipped to their ranges; None = never learned.

        And how far it lies from the training clips, see `distance`.

        Raises:
            UsageError: no regressor was trained for its streams.
        """
        layers = self.embedder.encode([example]).layers
        try:
            (labels,) = self.predict(layers, example.streams)
        except UsageError as error:
            raise UsageError(f"{example.key}: {error}") from None
        return labels, self.distance(layers, example.streams)[0]

    def distance(self, layers: Tensor, streams: Sequence[str]) -> list[DistanceScore | None]:
        """How far clips lie from what the regressor was trained on; None where it is not known.

        Args:
            layers: (B, L, 2 D) of the encoder.
            streams: those that all of the clips have.
        """
        distances = self.distances.get(subset_name(streams))
        return [None] * len(layers) if distances is None else [*distances.score(layers)]

    @torch.no_grad()
    def predict(self, layers: Tensor, streams: Sequence[str]) -> list[Labels]:
        """Sentiment and emotions of clips that are embedded already.

        Args:
            layers: (B, L, 2 D) of the encoder.
            streams: those that all of the clips have.

        Raises:
            UsageError: no regressor was trained for them.
        """
        subset = subset_name(streams)
        if subset not in self.regressors:
            raise UsageError(f"no regressor for {subset}; there are {', '.join(self.regressors)}")
        lengths = torch.full((len(layers),), layers.shape[1])
        keys = tuple(map(str, range(len(layers))))
        batch = Batch(keys, {"embedding": Padded(layers, lengths)})
        each = [regressor.predict(batch) for regressor in self.regressors[subset]]
        limit, learned = self.sentiment_limit, self.targets(subset)
        scale = None if limit == SENTIMENT_LIMITS[0] else limit
        sentiment = torch.stack([one["sentiment"] for one in each]).mean(0).clamp(-limit, limit)
        emotions = torch.stack([one["emotions"] for one in each]).mean(0).clamp(*EMOTION_RANGE)
        labels = []
        for row in torch.cat((sentiment[:, None], emotions), 1).tolist():
            values = [x if name in learned else None for name, x in zip(TARGETS, row, strict=True)]
            labels.append(Labels(values[0], emotions=tuple(values[1:]), sentiment_limit=scale))
        return labels
