"""From a clip to sentiment and emotions: a frozen encoder and the regressors trained on it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from mmembed.batch import Batch, Padded, stream_subsets, subset_name
from mmembed.config import from_dict
from mmembed.data.example import EMOTIONS, Example, Labels
from mmembed.embedder import Embedder
from mmembed.errors import CorruptError, UsageError
from mmembed.methods.emotion import EmotionConfig, EmotionRegressor

SENTIMENT_RANGE = (-3.0, 3.0)
EMOTION_RANGE = (0.0, 3.0)


class EmotionPredictor:
    """Encoder and regressors of a run folder; answers are means over the run's seeds.

    Attributes:
        embedder: the frozen encoder.
        regressors: stream subset -> one for each seed.
    """

    def __init__(
        self, embedder: Embedder, regressors: Mapping[str, Sequence[EmotionRegressor]]
    ) -> None:
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
            if config.layers != len(embedder.encoder.layer_names):
                raise ValueError(f"it reads {config.layers} layers, the encoder has others")
            seeds = settings["loop"]["seeds"]
            regressors = {
                subset: [_load_regressor(folder, subset, seed, config) for seed in seeds]
                for subset in map(subset_name, stream_subsets())
                if (folder / subset).is_dir()
            }
        except FileNotFoundError as error:
            raise CorruptError(
                f"{folder}: holds no trained regressor, {error.filename} is missing"
            ) from None
        except (ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise CorruptError(f"{folder}: not a usable regressor: {error}") from None
        return cls(embedder, regressors)

    @torch.no_grad()
    def __call__(self, example: Example) -> Labels:
        """Sentiment and emotions of an example, clipped to their ranges.

        Raises:
            UsageError: no regressor was trained for its streams.
        """
        subset = subset_name(example.streams)
        if subset not in self.regressors:
            raise UsageError(
                f"{example.key}: no regressor for {subset}; there are {', '.join(self.regressors)}"
            )
        layers = self.embedder.encode([example]).layers
        lengths = torch.tensor([layers.shape[1]])
        batch = Batch((example.key,), {"embedding": Padded(layers, lengths)})
        answers = [regressor.predict(batch) for regressor in self.regressors[subset]]
        sentiment = torch.stack([a["sentiment"] for a in answers]).mean(0).clamp(*SENTIMENT_RANGE)
        emotions = torch.stack([a["emotions"] for a in answers]).mean(0).clamp(*EMOTION_RANGE)
        assert emotions.shape[1] == len(EMOTIONS)
        return Labels(sentiment=float(sentiment[0]), emotions=tuple(emotions[0].tolist()))


def _load_regressor(
    folder: Path, subset: str, seed: int, config: EmotionConfig
) -> EmotionRegressor:
    regressor = EmotionRegressor(config).eval().requires_grad_(False)
    regressor.load_state_dict(load_file(folder / subset / f"seed-{seed}.safetensors"))
    return regressor
