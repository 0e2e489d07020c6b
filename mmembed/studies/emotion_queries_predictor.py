"""From a clip and any emotion words to how likely each is: a frozen encoder and trained queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmembed.batch import Batch, Padded, parse_subset, subset_name
from mmembed.config import from_dict, read_json
from mmembed.data.example import Example
from mmembed.embedder import Embedder
from mmembed.embedder.card import NOT_RECORDED
from mmembed.errors import CorruptError, MmembedError, UsageError
from mmembed.methods.emotion_queries import EmotionQueries, EmotionQueriesConfig
from mmembed.nn.weights import read_module
from mmembed.studies import trained_on
from mmembed.studies.emotion_queries import ALL, QueriesRun, asking
from mmembed.studies.text_vectors import text_vectors


class ClipQueries:
    """Encoder and queries; answers are means over the run's seeds.

    Attributes:
        embedder: the frozen encoder.
        queries: one for each seed.
        streams: what they were trained on; a clip's other streams are not looked at.
        reads: "layers" or "frames" of the encoder.
        backbone: text encoder of the words.
        trained_on: what they were trained on, in one line.
    """

    def __init__(
        self,
        embedder: Embedder,
        queries: Sequence[EmotionQueries],
        streams: Sequence[str],
        reads: str,
        backbone: str,
        trained_on: str = NOT_RECORDED,
    ) -> None:
        self.embedder = embedder
        self.queries = queries
        self.streams = tuple(streams)
        self.reads = reads
        self.backbone = backbone
        self.trained_on = trained_on
        self._vectors: dict[str, Tensor] = {}

    @classmethod
    def from_run(cls, run: Path, encoder: Path) -> ClipQueries:
        """Load what `finetune emotion_queries --out RUN` left, and the encoder it was trained on.

        Raises:
            CorruptError: a part is missing or damaged.
            UsageError: the encoder is another.
        """
        embedder = Embedder.from_pretrained(encoder)
        try:
            settings = from_dict(QueriesRun, read_json(run / "run.json"))
            if not settings.loop.seeds:
                raise CorruptError("run.json names no seed")
            queries = [
                _load(run / ALL / f"seed-{seed}.safetensors", settings.method)
                for seed in settings.loop.seeds
            ]
            streams = parse_subset(settings.streams)
            data = trained_on.read(run)
        except FileNotFoundError as error:
            raise CorruptError(
                f"{run}: holds no trained emotion queries, {error.filename} is missing"
            ) from None
        except (ValueError, MmembedError) as error:
            what = str(error).removeprefix(f"{run}/")
            raise CorruptError(f"{run}: no usable emotion queries: {what}") from None
        known = NOT_RECORDED if data is None else str(data)
        made = cls(embedder, queries, streams, settings.reads, settings.backbone, known)
        sha256 = settings.encoder
        if sha256 != embedder.sha256:
            raise UsageError(f"{encoder}: not the encoder of {run}, whose SHA-256 is {sha256}")
        return made

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
        seen = example.only(self.streams)
        if not seen.streams:
            raise UsageError(f"{example.key}: has none of {subset_name(self.streams)}")
        encoding = self.embedder.encode([seen])
        steps = encoding.layers[0] if self.reads == "layers" else encoding.frames.item(0)
        batch = Batch((example.key,), {"embedding": Padded.stack([steps])})
        vectors = self._ask(words)
        chances = [queries.score(batch, vectors)[0].sigmoid() for queries in self.queries]
        return dict(zip(words, torch.stack(chances).mean(0).tolist(), strict=True))

    def _ask(self, words: Sequence[str]) -> Tensor:
        """(E, D) vectors; the text encoder is read for new words alone."""
        if new := [word for word in dict.fromkeys(words) if word not in self._vectors]:
            vectors = text_vectors(self.backbone, [asking(word) for word in new])
            self._vectors |= dict(zip(new, vectors, strict=True))
        return torch.stack([self._vectors[word] for word in words])


def _load(path: Path, config: EmotionQueriesConfig) -> EmotionQueries:
    return read_module(lambda: EmotionQueries(config), path).eval().requires_grad_(False)
