"""What is stored of a clip, and how many bytes that takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from mmembed.data.example import Example
from mmembed.data.manifest.embedded import row_of
from mmembed.data.shards.layout import Record
from mmembed.embedder import Embedder, Embedding
from mmembed.encoder import FRAME_RATE
from mmembed.errors import DataError, UsageError
from mmembed.io.json import as_text
from mmembed.io.remote import without_secrets

Granularity = Literal["utterance", "frame", "word"]
Dtype = Literal["float32", "float16"]
Precision = Literal["fp32", "bf16"]
Array = NDArray[Any]

BLOCK: Final = 512  # bytes; of a tar, which has a header for each member
NPY_HEADER: Final = 128  # bytes
JSON: Final = 1024  # bytes of a record's JSON and its line in the index, about


@dataclass(frozen=True)
class Content:
    """What an embedder writes of each clip.

    Attributes:
        embedder: the frozen encoder.
        granularity: "utterance" = pooled and layers, "frame" = frames, "word" = words.
        layers: names of those to store; () = all.
        dtype: of what is written.
        precision: of the matrix products, "fp32" or "bf16".

    Raises:
        UsageError: there is no such layer, or there are no words to be had from this encoder.
    """

    embedder: Embedder
    granularity: tuple[Granularity, ...] = ("utterance",)
    layers: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        known = self.embedder.encoder.layer_names
        if unknown := [name for name in self.layers if name not in known]:
            raise UsageError(f"--layers {unknown[0]!r}: there are {', '.join(known)}")
        if not self.granularity:
            raise UsageError("--granularity: name one or more of utterance, frame, word")
        if "word" in self.granularity and self.embedder.recogniser is None:
            raise UsageError(
                "--granularity word: the encoder folder holds no recogniser; "
                "folders that `mmembed pretrain` writes now do"
            )

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Of the layers that are stored, in the encoder's order."""
        known = self.embedder.encoder.layer_names
        return tuple(name for name in known if name in self.layers) if self.layers else known

    @property
    def description(self) -> dict[str, Any]:
        """What a reader has to know of the vectors."""
        return {
            **self.embedder.description,
            "layers": list(self.layer_names),
            "granularity": sorted(self.granularity),
            "dtype": self.dtype,
            "computed_in": "bfloat16" if self.precision == "bf16" else "float32",
        }

    def embed(self, examples: Sequence[Example]) -> list[Record | DataError]:
        """The records of a batch, in its order; an error where a vector is not finite."""
        half = self.precision == "bf16"
        with torch.autocast(self.embedder.device.type, torch.bfloat16, enabled=half):
            found = self.embedder.embed(examples, words="word" in self.granularity)
        return [self._record(*each) for each in zip(examples, found, strict=True)]

    def _record(self, example: Example, embedding: Embedding) -> Record | DataError:
        arrays, described = self._members(embedding)
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                return DataError(example.key, "not_finite", f"{name} is not finite in {self.dtype}")
        row = row_of(example.utterance)
        if example.utterance.media is not None:
            row["media"] = as_text(without_secrets(example.utterance.media))
        meta = {
            "frames": len(embedding.frames),
            "split": example.utterance.split,
            "speaker": example.utterance.speaker,
        }
        if "word" in self.granularity:
            meta["words"] = len(described["words"])
        described |= {
            **row,
            "streams": list(example.streams),
            "notes": example.info.to_json(),
            "frame_rate": FRAME_RATE,
        }
        members: dict[str, Array | Mapping[str, object]] = {**arrays, "json": described}
        return Record(example.key, members, meta)

    def _members(self, embedding: Embedding) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays, and what the JSON has to say of them."""
        arrays: dict[str, Array] = {}
        described: dict[str, Any] = {}
        if "utterance" in self.granularity:
            chosen = [embedding.layer_names.index(name) for name in self.layer_names]
            arrays |= {"pooled.npy": embedding.pooled, "layers.npy": embedding.layers[chosen]}
        if "frame" in self.granularity:
            arrays["frames.npy"] = embedding.frames
        if "word" in self.granularity:
            words = () if isinstance(embedding.aligned, str) else embedding.aligned
            width = len(embedding.pooled)
            arrays["words.npy"] = np.array([word.vector for word in words]).reshape(-1, width)
            described["words"] = [
                {"text": word.text, "start": word.start, "end": word.end} for word in words
            ]
            if isinstance(embedding.aligned, str):
                unknown = embedding.transcript is None
                why = "its words are not known" if unknown else embedding.aligned
                described["no_words"] = why
        with np.errstate(over="ignore"):  # what is too large for float16 is told as not finite
            return {name: x.astype(self.dtype) for name, x in arrays.items()}, described

    def size(self, frames: int, words: int) -> int:
        """About how many bytes a clip takes in a shard."""
        width = 2 * self.embedder.encoder.config.width
        values = {
            "utterance": (width, len(self.layer_names) * width),
            "frame": (frames * width // 2,),
            "word": (words * width,),
        }
        total, each = JSON + BLOCK, np.dtype(self.dtype).itemsize
        for granularity in self.granularity:
            for count in values[granularity]:
                total += BLOCK + -(-(NPY_HEADER + each * count) // BLOCK) * BLOCK
        return total
