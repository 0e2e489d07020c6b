"""From a clip to sentiment and emotions: a frozen encoder and the regressors trained on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from mmembed.batch import Batch, Padded, stream_subsets, subset_name
from mmembed.config import from_dict, read_json
from mmembed.data.example import Example
from mmembed.data.manifest.utterance import EMOTIONS, SENTIMENT_LIMITS, Labels
from mmembed.embedder import Embedder
from mmembed.embedder.card import NOT_RECORDED
from mmembed.errors import CorruptError, MmembedError, UsageError
from mmembed.methods.emotion import EmotionConfig, EmotionRegressor
from mmembed.nn.weights import read_module
from mmembed.studies import trained_on
from mmembed.studies.familiarity import FOLDER, Familiarity, FamiliarityScore
from mmembed.studies.study import FinetuneLoop
from mmembed.studies.trained_on import TrainedOn

EMOTION_RANGE: Final = (0.0, 3.0)
TARGETS: Final = ("sentiment", *EMOTIONS)


class EmotionPredictor:
    """Encoder and regressors of a run folder; answers are means over the run's seeds.

    Attributes:
        embedder: the frozen encoder.
        regressors: stream subset -> one for each seed.
        familiarity: stream subset -> how far its training clips lie from each other; without those
            that versions before this one trained.
        data: what the regressors were trained on, None where they do not tell.
    """

    def __init__(
        self,
        embedder: Embedder,
        regressors: Mapping[str, Sequence[EmotionRegressor]],
        familiarity: Mapping[str, Familiarity] = MappingProxyType({}),
        data: TrainedOn | None = None,
    ) -> None:
        self.embedder = embedder
        self.regressors = regressors
        self.familiarity = familiarity
        self.data = data

    @property
    def trained_on(self) -> str:
        """What the regressors were trained on, in one line; "not recorded" where nothing tells."""
        return NOT_RECORDED if self.data is None else str(self.data)

    @property
    def sentiment_limit(self) -> float:
        """Sentiment is predicted in [-limit, limit], on the scale that was trained on."""
        return SENTIMENT_LIMITS[0] if self.data is None else self.data.sentiment_limit

    def targets(self, subset: str) -> tuple[str, ...]:
        """Those of `TARGETS` that a subset's regressors learned; all where it is not recorded."""
        learned = () if self.data is None else self.data.learned
        return next((one.targets for one in learned if one.variant == subset), TARGETS)

    @classmethod
    def from_run(cls, run: Path) -> EmotionPredictor:
        """Load `run/pretrain/encoder` and `run/emotion`.

        Raises:
            CorruptError: a part is missing or does not fit.
        """
        embedder = Embedder.from_pretrained(run / "pretrain" / "encoder")
        return cls.from_folder(embedder, run / "emotion")

    @classmethod
    def from_folder(cls, embedder: Embedder, folder: Path) -> EmotionPredictor:
        """Load what `mmembed finetune emotion --out FOLDER` left, for an encoder that is there.

        Raises:
            CorruptError: a part is missing or damaged.
            UsageError: the regressors read layers of other shapes than this encoder has.
        """
        try:
            settings = read_json(folder / "run.json")
            config = from_dict(EmotionConfig, settings.get("method"), "method.")
            seeds = from_dict(FinetuneLoop, settings.get("loop"), "loop.").seeds
            regressors = {
                subset: [_load_regressor(folder, subset, seed, config) for seed in seeds]
                for subset in map(subset_name, stream_subsets())
                if (folder / subset).is_dir()
            }
            if not seeds or not regressors:
                raise CorruptError("there are no weights of any stream subset")
            data = trained_on.read(folder)
            familiarity = {
                subset: Familiarity.read(path, config.layers * config.width)
                for subset in regressors
                if (path := folder / FOLDER / f"{subset}.safetensors").exists()
            }
        except FileNotFoundError as error:
            raise CorruptError(
                f"{folder}: holds no trained regressor, {error.filename} is missing"
            ) from None
        except MmembedError as error:
            what = str(error).removeprefix(f"{folder}/")
            raise CorruptError(f"{folder}: not a usable regressor: {what}") from None
        if data is not None and data.encoder not in ("", embedder.sha256):
            raise UsageError(
                f"{folder}: was trained on vectors of another encoder (SHA-256 "
                f"{data.encoder[:12]}...) than this one ({embedder.sha256[:12]}...)"
            )
        encoder = embedder.encoder
        held = (len(encoder.layer_names), 2 * encoder.config.width)
        if (config.layers, config.width) != held:
            raise UsageError(
                f"{folder}: was trained on {config.layers} layers of {config.width}, the encoder "
                f"has {held[0]} of {held[1]}; it is another"
            )
        return cls(embedder, regressors, familiarity, data)

    def __call__(self, example: Example) -> Labels:
        """Sentiment and emotions of an example, clipped to their ranges; None = never learned.

        Raises:
            UsageError: no regressor was trained for its streams.
        """
        return self.answer(example)[0]

    def answer(self, example: Example) -> tuple[Labels, FamiliarityScore | None]:
        """The same, and how far it lies from the training clips; see `place`."""
        layers = self.embedder.encode([example]).layers
        try:
            (labels,) = self.judge(layers, example.streams)
        except UsageError as error:
            raise UsageError(f"{example.key}: {error}") from None
        return labels, self.place(layers, example.streams)[0]

    def place(self, layers: Tensor, streams: Sequence[str]) -> list[FamiliarityScore | None]:
        """How far clips that are embedded already lie from what the regressor was trained on.

        Args:
            layers: (B, L, 2 D) of the encoder.
            streams: those that all of the clips have.

        Returns:
            None for each where nothing was kept of the training clips.
        """
        known = self.familiarity.get(subset_name(streams))
        return [None] * len(layers) if known is None else [*known.place(layers)]

    @torch.no_grad()
    def judge(self, layers: Tensor, streams: Sequence[str]) -> list[Labels]:
        """The same of clips that are embedded already.

        Args:
            layers: (B, L, 2 D) of the encoder.
            streams: those that all of the clips have.

        Raises:
            UsageError: no regressor was trained for them.
        """
        subset = subset_name(streams)
        if subset not in self.regressors:
            there = ", ".join(self.regressors)
            raise UsageError(f"no regressor for {subset}; there are {there}")
        lengths = torch.full((len(layers),), layers.shape[1])
        keys = tuple(map(str, range(len(layers))))
        batch = Batch(keys, {"embedding": Padded(layers, lengths)})
        answers = [regressor.predict(batch) for regressor in self.regressors[subset]]
        limit, learned = self.sentiment_limit, self.targets(subset)
        scale = None if limit == SENTIMENT_LIMITS[0] else limit
        sentiment = torch.stack([a["sentiment"] for a in answers]).mean(0).clamp(-limit, limit)
        emotions = torch.stack([a["emotions"] for a in answers]).mean(0).clamp(*EMOTION_RANGE)
        predicted = torch.cat((sentiment[:, None], emotions), 1).tolist()
        rows = [
            [x if name in learned else None for name, x in zip(TARGETS, values, strict=True)]
            for values in predicted
        ]
        return [
            Labels(sentiment=mood, emotions=tuple(intensities), sentiment_limit=scale)
            for mood, *intensities in rows
        ]


def _load_regressor(
    folder: Path, subset: str, seed: int, config: EmotionConfig
) -> EmotionRegressor:
    path = folder / subset / f"seed-{seed}.safetensors"
    return read_module(lambda: EmotionRegressor(config), path).eval().requires_grad_(False)
