"""Embedding inside an engine that moves rows in batches: Ray Data, Daft, Hugging Face datasets.

    embed = EmbedBatch("openai/whisper-base", columns={"path": "file"})
    dataset.map(embed, batched=True, batch_size=64)  # datasets
    dataset.map_batches(EmbedBatch, fn_constructor_args=["ENCODER"], num_gpus=1)  # Ray Data

The engine decides how many workers there are, where they run and what is tried again. A row that
fails is a row with a reason, never an exception that would end the job.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch

from mmembed.config import MAX_SECONDS, Seconds
from mmembed.data.example import Example, batches
from mmembed.data.media.load import Source
from mmembed.embedder import Embedder
from mmembed.embedder.clip import as_clip
from mmembed.embedder.sources import EncoderName
from mmembed.errors import DataError, UsageError

NOTHING: Final = (None, "")


@dataclass
class EmbedBatch:
    """Rows to the same rows with a vector each; pickled without the encoder, which each worker
    loads when its first batch comes.

    Attributes:
        encoder: as `Embedder.from_pretrained` takes it.
        columns: field of `mmembed.embedder.clip.Clip` (path, start, end, text, audio, sample_rate,
            video) -> the column that holds it; cells may be empty.
        streams: those to use, such as "audio+video"; None = all that a clip has.
        device: None = a GPU, if the worker has one.
        workers: decoding processes of each worker of the engine.
        max_seconds: the most that a file may last.
    """

    encoder: EncoderName
    columns: Mapping[str, str] = field(default_factory=lambda: {"path": "path"})
    streams: str | None = None
    device: str | None = None
    workers: int = 1
    max_seconds: Seconds = MAX_SECONDS

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "embedder"}

    @cached_property
    def embedder(self) -> Embedder:
        """Loaded when it is first needed."""
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return Embedder.from_pretrained(self.encoder, device, workers=self.workers)

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
        """The columns of a batch, and beside them:

        embedding (B, 2 D) float32, the pooled vectors; NaN where a row failed.
        streams: those that were used, "audio+video"; "" where a row failed.
        failed: why, "missing: a.mp4: no such file"; "" where there is a vector.

        Raises:
            UsageError: the batch lacks a column, or there is no such encoder.
        """
        if missing := [name for name in self.columns.values() if name not in batch]:
            raise UsageError(f"the batch has no column {missing[0]!r}; it has {', '.join(batch)}")
        rows = list(zip(*(batch[name] for name in self.columns.values()), strict=True))
        failed = [""] * len(rows)
        sources: dict[int, Source] = {}
        wanted = self.embedder.streams(self.streams)
        for number, row in enumerate(rows):
            cells = zip(self.columns, row, strict=True)
            held = {name: cell for name, cell in cells if not _is_nothing(cell)}
            try:
                clip = as_clip(held, f"row-{number}")
                crops = self.embedder.encoder.crops
                sources[number] = clip.source(wanted, None, self.max_seconds, crops)
            except UsageError as error:
                failed[number] = f"unusable: {error}"
        examples: dict[int, Example] = {}
        loaded = self.embedder.decoder.load(sources.values())
        for number, example in zip(sources, loaded, strict=True):
            if isinstance(example, DataError):
                failed[number] = f"{example.reason}: {example}"
            elif not (own := replace(example, features={})).streams:
                failed[number] = f"no_streams: has no {' or '.join(wanted)}"
            else:
                examples[number] = own
        vectors = np.full((len(rows), 2 * self.embedder.encoder.frame_width), np.nan, np.float32)
        used = [""] * len(rows)
        left = iter(examples)
        for part in batches(examples.values()):
            for found in self.embedder.embed(part, words=False):
                number = next(left)
                if np.isfinite(found.pooled).all():
                    vectors[number], used[number] = found.pooled, "+".join(found.streams)
                else:
                    failed[number] = "not_finite: its vector is not finite"
        return {**batch, "embedding": vectors, "streams": used, "failed": failed}


def _is_nothing(cell: Any) -> bool:
    """An empty cell, as each engine has it."""
    return (isinstance(cell, str) or cell is None or np.isscalar(cell)) and (
        cell in NOTHING or cell != cell  # NaN
    )
