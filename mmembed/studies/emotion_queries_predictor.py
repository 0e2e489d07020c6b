"""From a clip and any emotion words to how likely each is: a frozen encoder and trained queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from mmembed.batch import Batch, Padded
from mmembed.data.example import Example
from mmembed.embedder import Embedder
from mmembed.errors import CorruptError, UsageError
from mmembed.methods.emotion_queries import EmotionQueries
from mmembed.nn.weights import read_module
from mmembed.settings.finetune import EmotionQueriesRun
from mmembed.streams import parse_subset, subset_name
from mmembed.studies.emotion_queries import ALL, asking
from mmembed.studies.predictors import TrainedRun, load_run
from mmembed.studies.text_vectors import text_vectors


@dataclass(frozen=True)
class QueriesPredictor:
    """Encoder and queries; predictions are means over the run's seeds.

    Attributes:
        embedder: the frozen encoder.
        run: that trained the queries.
        queries: one for each seed.
        streams: what they were trained on; a clip's other streams are not used.
    """

    embedder: Embedder
    run: TrainedRun[EmotionQueriesRun]
    queries: Sequence[EmotionQueries]
    streams: tuple[str, ...]
    _vectors: dict[str, Tensor] = field(default_factory=dict)  # of the words asked so far

    @classmethod
    def from_run(cls, folder: Path, encoder: Path) -> QueriesPredictor:
        """Load what `finetune emotion_queries` left, and the encoder it was trained on.

        Raises:
            CorruptError: a part is missing or damaged.
            UsageError: the encoder is another.
        """
        embedder = Embedder.from_pretrained(encoder)
        run = load_run(folder, EmotionQueriesRun)
        if run.settings.encoder != embedder.sha256:
            raise UsageError(
                f"{encoder}: not the encoder of {folder}, whose SHA-256 is {run.settings.encoder}"
            )
        try:
            streams = parse_subset(run.settings.streams)
        except ValueError as error:
            raise CorruptError(f"{folder}: run.json: {error}") from None
        queries = [
            read_module(lambda: EmotionQueries(run.settings.method), path)
            .eval()
            .requires_grad_(False)
            for path in run.weights(ALL)
        ]
        return cls(embedder, run, queries, streams)

    @torch.no_grad()
    def __call__(self, example: Example, words: Sequence[str]) -> Mapping[str, float]:
        """Word -> how likely the clip shows it, in [0, 1]; each by itself, they add up to nothing.

        Args:
            example: a clip with one of `streams` at least.
            words: one or more adjectives ("angry", "quietly proud"), also some never trained on.

        Raises:
            UsageError: the clip has none of the streams, or there is no word.
        """
        if not words or not all(word.strip() for word in words):
            raise UsageError("no emotion to ask for: give one or more words")
        example = example.only(self.streams)
        if not example.streams:
            raise UsageError(f"{example.key}: has none of {subset_name(self.streams)}")
        encoding = self.embedder.encode([example])
        layers = self.run.settings.reads == "layers"
        steps = encoding.layers[0] if layers else encoding.frames.item(0)
        batch = Batch((example.key,), {"embedding": Padded.stack([steps])})
        vectors = self._vectors_of(words)
        each = [queries.score(batch, vectors)[0].sigmoid() for queries in self.queries]
        return dict(zip(words, torch.stack(each).mean(0).tolist(), strict=True))

    def _vectors_of(self, words: Sequence[str]) -> Tensor:
        """(E, D); the text encoder is read for new words alone."""
        if new := [word for word in dict.fromkeys(words) if word not in self._vectors]:
            settings = self.run.settings
            asked = [asking(word, settings.descriptions) for word in new]
            vectors = text_vectors(settings.backbone, asked)
            self._vectors.update(zip(new, vectors, strict=True))
        return torch.stack([self._vectors[word] for word in words])
