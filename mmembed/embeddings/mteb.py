"""An encoder as MTEB's runner takes it, in the call shape of sentence-transformers.

    from mmembed.embeddings.mteb import MtebEncoder

    encoder = MtebEncoder("runs/base/encoder")
    mteb.evaluate(encoder, mteb.get_tasks(["CREMA_D"]))
    vectors = encoder.encode(["red on blue", {"audio": "clip.wav", "text": "bin blue"}])
    encoder.similarity(vectors, vectors)

The vector of a clip is `Embedding.pooled`, mean and standard deviation of its fused frames over
time: what `mmembed evaluate maeb` reads.

What MTEB asks of an encoder: https://embeddings-benchmark.github.io/mteb/api/model/
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize
from torch.utils.data import DataLoader

from mmembed.data.example import Example, batches
from mmembed.embedder import Embedder
from mmembed.embedder.clip import Clip
from mmembed.embedder.hub import is_hub_name
from mmembed.embedder.sources import EncoderName
from mmembed.errors import UsageError
from mmembed.features.video import VIDEO_RATE
from mmembed.streams import STREAMS

Vectors: TypeAlias = NDArray[np.float32] | Tensor

TOGETHER: Final = 32  # clips that are read before they are embedded
CONTEXT: Final = frozenset(
    {"task_metadata", "hf_split", "hf_subset", "prompt_type", "batch_size", "show_progress_bar"}
)
"""Arguments of MTEB and sentence-transformers that change no vector."""


class MtebEncoder:
    """Clips to vectors; see the module.

    A clip is words, or a dict with one or more of

    - "audio": a file, {"array": (samples,) or (channels, samples), "sampling_rate": Hz}, {"path":
      ..., "bytes": ...} as `datasets` has it, or an audio decoder of torchcodec;
    - "video": a file, of which the pictures are taken, not the sound; (T, height, width, 3) or (T,
      3, height, width) uint8 at 25 Hz; {"path": ..., "bytes": ...}, or a video decoder of
      torchcodec;
    - "text": the words spoken.

    Attributes:
        embedder: the encoder.
        name: as MTEB has it, "ORGANISATION/NAME"; the organisation is mmembed but of names on the
            hub.
    """

    def __init__(
        self,
        model_name: EncoderName,
        revision: str | None = None,
        *,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        """Load an encoder: arguments and errors are those of `Embedder.from_pretrained`."""
        self.embedder = Embedder.from_pretrained(model_name, device, revision=revision, **options)
        config = self.embedder.config
        bases = [part["name"] for part in config.get("pretrained", {}).values()]
        own = "+".join(Path(base).name for base in bases) or config["run"].get("name", "encoder")
        on_hub = isinstance(model_name, str) and not bases and is_hub_name(model_name)
        self.name = str(model_name) if on_hub else f"mmembed/{own}"
        self._adapted_from = bases[0] if len(bases) == 1 else None

    @property
    def modalities(self) -> list[str]:
        """What the encoder reads: some of audio, video and text."""
        return [stream for stream in STREAMS if stream in self.embedder.encoder.reads]

    def encode(
        self,
        inputs: DataLoader[Any] | str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]],
        **context: Any,
    ) -> NDArray[np.float32]:
        """Embed clips; whatever else is among them changes no vector but by rounding.

        Sounds and pictures that a dataset holds as files are decoded as `mmembed extract` does it.

        Args:
            inputs: a clip, several, or batches of MTEB: a dict of lists.
            context: which task this is for and how to show progress (`CONTEXT`).

        Returns:
            (N, 2 D), of one clip (2 D,).

        Raises:
            DataError: a clip cannot be used.
            UsageError: it holds nothing that the encoder reads, or an argument is not known here.
        """
        if unknown := sorted(context.keys() - CONTEXT):
            raise UsageError(f"encode has no argument {unknown[0]!r}")
        if isinstance(inputs, str | Mapping):
            vector: NDArray[np.float32] = self.encode([inputs])[0]
            return vector
        rows = _rows(inputs) if isinstance(inputs, DataLoader) else map(_row, inputs)
        vectors = [part for some in _together(rows) for part in self._vectors(some)]
        if not vectors:
            raise UsageError("no clip was given")
        return np.concatenate(vectors)

    def similarity(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """(N, M) cosines of (N, W) and (M, W); of one vector (W,) N is 1."""
        first, second = (normalize(_matrix(each)) for each in (embeddings1, embeddings2))
        return first @ second.T

    def similarity_pairwise(self, embeddings1: Vectors, embeddings2: Vectors) -> Tensor:
        """(N,) cosines of (N, W) and (N, W)."""
        return cosine_similarity(_matrix(embeddings1), _matrix(embeddings2))

    @property
    def mteb_model_meta(self) -> Any:
        """`mteb.ModelMeta`; its revision is the SHA-256 of the weights.

        Raises:
            UsageError: the extra `mteb` is not installed.
        """
        try:
            from mteb.models.model_meta import ModelMeta, ScoringFunction
        except ImportError as error:
            raise UsageError(f"MTEB needs pip install 'mmembed[mteb]' ({error})") from None
        weights = [*self.embedder.encoder.parameters()]
        return ModelMeta.create_empty(
            {
                "name": self.name,
                "revision": self.embedder.sha256,
                "n_parameters": sum(each.numel() for each in weights),
                "memory_usage_mb": sum(each.nbytes for each in weights) / 2**20,
                "embed_dim": 2 * self.embedder.encoder.layer_width,
                "framework": ["PyTorch"],
                "similarity_fn_name": ScoringFunction.COSINE,
                "use_instructions": False,
                "modalities": self.modalities,
                "adapted_from": self._adapted_from,
            }
        )

    def _vectors(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[NDArray[np.float32]]:
        """(n, 2 D) of some clips after others."""
        with TemporaryDirectory() as folder:
            examples = self._read(rows, Path(folder))
            for batch in batches(examples):
                yield self.embedder.encode(batch).pooled.numpy()

    def _read(self, rows: Sequence[Mapping[str, Any]], folder: Path) -> list[Example]:
        """Each stream by itself: it may have a file of its own."""
        examples: dict[int, Example] = {}
        for stream in sorted(self.modalities, key=("text", "audio", "video").index):
            clips = {
                number: _clip(stream, row[stream], folder / f"{stream}-{number}")
                for number, row in enumerate(rows)
                if row.get(stream) is not None
            }
            described = [vars(clip) for clip in clips.values()]
            for number, read in zip(clips, self.embedder.read(described, stream), strict=True):
                held = examples.get(number, read)  # that of the text knows how it is written
                examples[number] = replace(held, **{stream: getattr(read, stream)})
        for number, row in enumerate(rows):
            if number not in examples:
                raise UsageError(
                    f"a clip has {', '.join(row) or 'nothing'}; the encoder reads "
                    f"{', '.join(self.modalities)}"
                )
        return [examples[number] for number in range(len(rows))]


def _row(clip: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """A clip as a mapping.

    Raises:
        UsageError: it is something else, or has other fields.
    """
    if isinstance(clip, str):
        if os.path.isfile(clip):
            raise UsageError(f'{clip} is a file: give {{"audio": ...}} or {{"video": ...}}')
        return {"text": clip}
    if not isinstance(clip, Mapping):
        raise UsageError(f"a clip is words or a dict, found {type(clip).__name__}")
    if unknown := [name for name in clip if name not in STREAMS]:
        raise UsageError(f"a clip has no {unknown[0]!r}; it has {', '.join(STREAMS)}")
    return clip


def _rows(loader: DataLoader[Any]) -> Iterator[Mapping[str, Any]]:
    """Clips of MTEB's batches, sounds and pictures of a dataset as the files that it holds."""
    dataset: Any = loader.dataset
    for name, feature in (getattr(dataset, "features", None) or {}).items():
        if name in STREAMS and getattr(feature, "decode", False):
            dataset = dataset.cast_column(name, replace(feature, decode=False))
    if dataset is not loader.dataset:
        loader = DataLoader(dataset, loader.batch_size, collate_fn=loader.collate_fn)
    for batch in loader:
        columns = {name: batch[name] for name in STREAMS if name in batch}
        for values in zip(*columns.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _together(rows: Iterable[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    some: list[Mapping[str, Any]] = []
    for row in rows:
        some.append(row)
        if len(some) == TOGETHER:
            yield some
            some = []
    if some:
        yield some


def _clip(stream: str, value: Any, unpacked: Path) -> Clip:
    """One stream of a clip; `unpacked` is where the bytes of a file can be put."""
    if stream == "text":
        return Clip(text=value)
    if isinstance(value, str | os.PathLike):
        return Clip(path=value)
    if isinstance(value, Mapping) and "array" not in value:
        if value.get("bytes") is None:
            return Clip(path=value.get("path"))
        file = unpacked.with_suffix(Path(value.get("path") or "").suffix)
        file.write_bytes(value["bytes"])
        return Clip(path=file)
    if stream == "video":
        return Clip(video=_pictures(value))
    if isinstance(value, Mapping):
        samples, rate = value["array"], value["sampling_rate"]
    else:
        held = value.get_all_samples()
        samples, rate = held.data, held.sample_rate
    samples = np.asarray(samples)
    return Clip(audio=samples.mean(0) if samples.ndim == 2 else samples, sample_rate=rate)


def _pictures(video: Any) -> Any:
    """Frames at 25 Hz, channels last."""
    if hasattr(video, "get_frames_played_at"):
        known = video.metadata
        times = np.arange(known.begin_stream_seconds, known.end_stream_seconds, 1 / VIDEO_RATE)
        video = video.get_frames_played_at(times.tolist()).data
    frames = np.asarray(video)
    channels_first = frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3
    return frames.transpose(0, 2, 3, 1) if channels_first else frames


def _matrix(vectors: Vectors) -> Tensor:
    given = torch.as_tensor(vectors).float()
    return given if given.ndim == 2 else given[None]
