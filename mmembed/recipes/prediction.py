"""From a clip to sentiment and emotions: a frozen encoder and the regressors trained on it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmembed.batch import Batch, Padded
from mmembed.config import from_dict
from mmembed.data.example import EMOTIONS, Example, Labels
from mmembed.embedder import Embedder
from mmembed.errors import CorruptError
from mmembed.methods.emotion import EmotionConfig, EmotionRegressor

SENTIMENT_RANGE = (-3.0, 3.0)
EMOTION_RANGE = (0.0, 3.0)


class EmotionPredictor:
    """Encoder and regressors of a run folder; answers are means over the run's seeds."""

    def __init__(self, embedder: Embedder, regressors: Sequence[EmotionRegressor]) -> None:
        self.embedder = embedder
        self.regressors = regressors

    @classmethod
    def from_run(cls, run: Path) -> EmotionPredictor:
        """Load `run/pretrain/encoder` and `run/emotion`.

        Raises:
            CorruptError: a part is missing or does not fit.
        """
        embedder = Embedder.from_pretrained(run / "pretrain" / "encoder")
        folder = run / "emotion"
        try:
            settings = json.loads((folder / "run.json").read_text())
            config = from_dict(EmotionConfig, settings["method"])
            regressors = []
            for seed in settings["loop"]["seeds"]:
                regressor = EmotionRegressor(config).eval().requires_grad_(False)
                regressor.load_state_dict(load_file(folder / f"seed-{seed}.safetensors"))
                regressors.append(regressor)
        except FileNotFoundError as error:
            raise CorruptError(
                f"{folder}: holds no trained regressor, {error.filename} is missing"
            ) from None
        except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CorruptError(f"{folder}: not a usable regressor: {error}") from None
        return cls(embedder, regressors)

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example]) -> list[Labels]:
        """Sentiment and emotions of each example, clipped to their ranges."""
        layers = self.embedder(examples).layers
        lengths = torch.full((len(examples),), layers.shape[1], dtype=torch.int64)
        batch = Batch(tuple(e.key for e in examples), {"embedding": Padded(layers, lengths)})
        answers = [regressor.predict(batch) for regressor in self.regressors]
        sentiment = torch.stack([a["sentiment"] for a in answers]).mean(0).clamp(*SENTIMENT_RANGE)
        emotions = torch.stack([a["emotions"] for a in answers]).mean(0).clamp(*EMOTION_RANGE)
        assert emotions.shape[1] == len(EMOTIONS)
        return [
            Labels(sentiment=s, emotions=tuple(e))
            for s, e in zip(sentiment.tolist(), emotions.tolist(), strict=True)
        ]
