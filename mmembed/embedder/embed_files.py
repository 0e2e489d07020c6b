"""Clips and texts of a user through a frozen encoder, for those who ask one question of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from mmembed.batch import STREAMS, Encoding, subset_name
from mmembed.data.example import Example
from mmembed.data.inputs import load_all, open_sources
from mmembed.data.manifest.utterance import Utterance
from mmembed.data.media.decode import MAX_SECONDS
from mmembed.data.media.pool import Decoder
from mmembed.embedder import Embedder
from mmembed.errors import DataError, UsageError
from mmembed.features.text import normalise_transcript

Clip: TypeAlias = "str | Path | Example"


def open_encoder(folder: Path | str, sha256: str | None = None) -> Embedder:
    """The encoder in a folder, on the CPU.

    Args:
        folder: as `mmembed pretrain` leaves it.
        sha256: what its weights have to be; None = anything.

    Raises:
        CorruptError: it is no usable encoder folder.
        UsageError: its weights are others.
    """
    embedder = Embedder.from_pretrained(folder)
    if sha256 is not None and embedder.sha256 != sha256:
        raise UsageError(
            f"{folder}: another encoder (SHA-256 {embedder.sha256[:12]}...) than that of the "
            f"embeddings ({sha256[:12]}...); vectors of two encoders cannot be compared"
        )
    return embedder


def embed(embedder: Embedder, examples: Sequence[Example]) -> Encoding:
    """The examples as one batch."""
    return embedder.encode(examples)


def read_clips(
    clips: Iterable[Clip], streams: Sequence[str] = STREAMS, face_model: Path | None = None
) -> Iterator[Example]:
    """Decode clips one after another, each with no other than the named streams.

    Args:
        clips: media files; examples pass through.
        streams: of `STREAMS`.
        face_model: see `mmembed.features.video.face_crops`.

    Raises:
        DataError: naming the first clip that cannot be used, or has none of the streams.
        UsageError: a path names several clips.
    """
    wanted = tuple(streams)
    with Decoder() as decoder:
        for clip in clips:
            example = (
                clip if isinstance(clip, Example) else _read(clip, wanted, face_model, decoder)
            )
            example = example.only(wanted)
            if not example.streams:
                raise DataError(
                    clip.key if isinstance(clip, Example) else str(clip),
                    "no_streams",
                    f"has none of {subset_name(wanted)}",
                )
            yield example


def text_example(text: str) -> Example:
    """Words alone, in the spelling that the text stream knows.

    Raises:
        UsageError: there is no letter or digit in them.
    """
    words = normalise_transcript(text)
    if not words:
        raise UsageError(f"{text!r}: holds no word")
    return Example(Utterance("text", None, transcript=text), text=words)


def with_words(example: Example, text: str) -> Example:
    """A clip whose words are known."""
    return replace(example, text=text_example(text).text)


def _read(
    path: str | Path, streams: tuple[str, ...], face_model: Path | None, decoder: Decoder
) -> Example:
    sources = open_sources([Path(path)], streams, face_model, longest=MAX_SECONDS)
    if len(sources) != 1:
        raise UsageError(f"{path}: names {len(sources)} clips; name files of media one by one")
    (example,) = load_all(sources, decoder)
    if isinstance(example, DataError):
        raise example
    return example
