"""From clips to vectors, by a frozen encoder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal, overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmembed import __version__
from mmembed.batch import STREAMS, Encoding, Packed, parse_subset
from mmembed.config import Hz
from mmembed.data.collate import collate, to_item
from mmembed.data.decoding import Decoder
from mmembed.data.example import Example
from mmembed.data.sources import Source, load_all
from mmembed.data.versions import made_with
from mmembed.embedder import hub
from mmembed.embedder.clips import Described, as_clip
from mmembed.embedder.embedding import Array, Embedding, Word
from mmembed.embedder.folder import FILES, HEAD, Saved, read_folder, write_folder
from mmembed.encoder import FRAME_RATE, Hidden
from mmembed.errors import DataError, UsageError
from mmembed.features.text import normalise_transcript
from mmembed.features.video import check_face_model
from mmembed.nn.pooling import mean_and_std

CLIPS_AT_ONCE: Final = 16  # in a batch; changes no vector
Origin = Literal["given", "ctc"]
_NO_RECOGNISER: Final = (
    f"the encoder folder holds no {HEAD}; folders that `mmembed pretrain` writes now do"
)


class Embedder:
    """A frozen encoder with its vocabulary and, in newer folders, its speech recogniser.

    Attributes:
        encoder: in evaluation mode, without gradients.
        vocabulary: of the text stream.
        recogniser: writes transcripts and finds words, or None.
        config: config.json: sizes, and what the encoder was trained with.
        sha256: of the weights file; names the encoder in every shard.
        face_model: YuNet's ONNX file for the faces of clips; None = OpenCV's Haar cascade.
    """

    def __init__(
        self,
        saved: Saved,
        device: torch.device | str = "cpu",
        *,
        face_model: Path | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.encoder = saved.encoder.to(self.device).eval().requires_grad_(False)
        self.recogniser = saved.recogniser
        if self.recogniser is not None:
            self.recogniser.to(self.device).eval().requires_grad_(False)
        self.vocabulary = saved.vocabulary
        self.config = saved.config
        self.sha256 = saved.sha256
        self.face_model = face_model

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        revision: str | None = None,
        face_model: Path | str | None = None,
    ) -> Embedder:
        """Load an encoder folder; without any network if it is on this machine.

        Args:
            name: a folder, or where there is none of this name, "OWNER/NAME" on the Hugging Face
                hub (needs the extra `hub`).
            device: where to compute; vectors come back to the CPU.
            revision: branch, tag or commit on the hub.
            face_model: YuNet's ONNX file, where the encoder's training data was prepared with it.

        Raises:
            CorruptError: a file is missing, damaged, or of another version.
            UsageError: there is no such folder, and nothing of this name to be had from the hub.
        """
        folder = Path(name)
        if face_model is not None:
            check_face_model(Path(face_model))
        if isinstance(name, str) and not folder.exists():
            if not hub.is_hub_name(name):
                raise UsageError(
                    f"{name}: there is no such folder (a name on the hub is OWNER/NAME)"
                )
            folder = hub.download(name, revision, FILES)
        elif revision is not None:
            raise UsageError(f"{name}: a folder has no revisions, found {revision!r}")
        faces = None if face_model is None else Path(face_model)
        return cls(read_folder(folder), device, face_model=faces)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an encoder folder with its model card; the same encoder gives the same bytes."""
        write_folder(Path(folder), self.encoder, self.vocabulary, self.recogniser, self.config)

    def push_to_hub(self, name: str) -> str:
        """Make the repository "OWNER/NAME" on the Hugging Face hub hold what `save_pretrained`
        writes and nothing else; where there is no such repository yet, a private one is made.

        config.json goes along, and in it the paths of the training data as they were given.

        Returns:
            The address of the commit.

        Raises:
            UsageError: the extra `hub` is not installed, or the hub does not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload(name, Path(folder))

    @property
    def description(self) -> dict[str, Any]:
        """What a reader of the vectors has to know of them."""
        return {
            "encoder_sha256": self.sha256,
            "version": __version__,
            "made_with": made_with(),
            "width": self.encoder.config.width,
            "frame_rate": FRAME_RATE,
            "layers": list(self.encoder.layer_names),
        }

    @torch.no_grad()
    def encode(self, examples: Sequence[Example]) -> Encoding:
        """Embed examples in one batch, each with at least one stream; the result is on the CPU."""
        return self.encoder.pool(self._hidden(examples)).to("cpu")

    def embed(self, examples: Sequence[Example], *, words: bool = False) -> list[Embedding]:
        """As `encode`, one embedding for each example; `words`: find the known ones in the clip."""
        return self._embed(examples, words=words)

    @overload
    def __call__(
        self,
        clips: Described | None = None,
        *,
        audio: ArrayLike | None = None,
        sample_rate: Hz | None = None,
        video: ArrayLike | None = None,
        text: str | None = None,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
    ) -> Embedding: ...

    @overload
    def __call__(
        self,
        clips: list[Described] | tuple[Described, ...],
        *,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
    ) -> list[Embedding]: ...

    def __call__(
        self,
        clips: Described | list[Described] | tuple[Described, ...] | None = None,
        *,
        audio: ArrayLike | None = None,
        sample_rate: Hz | None = None,
        video: ArrayLike | None = None,
        text: str | None = None,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
    ) -> Embedding | list[Embedding]:
        """Embed one clip or several; whatever else is in the list changes no vector.

        Files are opened in a process of their own, as `mmembed extract` does.

        Args:
            clips: the path of a sound or video file, or a dict with fields of
                `mmembed.embedder.clips.Clip`; or a list of those.
            audio: (samples,) mono in [-1, 1], of one clip in memory.
            sample_rate: of `audio`, Hz.
            video: (T, height, width) grey or (T, height, width, 3) RGB, uint8, at 25 Hz.
            text: the words spoken, beside a path as well.
            streams: those to use, such as "audio+video"; None = all that a clip has. Words that
                are known and not used are still found in the clip.
            transcribe: where words are not known, let the recogniser write them. They are used as
                the text stream only where `streams` names text.
            tensors: tensors instead of numpy arrays.

        Raises:
            DataError: a clip cannot be used.
            UsageError: the call contradicts itself, or the folder has no recogniser.
        """
        wanted = _parse(streams)
        if transcribe and self.recogniser is None:
            raise UsageError(f"transcribe: {_NO_RECOGNISER}")
        given = {"audio": audio, "sample_rate": sample_rate, "video": video, "text": text}
        given = {field: value for field, value in given.items() if value is not None}
        if isinstance(clips, list | tuple):
            if given:
                raise UsageError(f"{', '.join(given)}: of several clips, each has its own")
            described = [as_clip(clip, f"clip-{number}") for number, clip in enumerate(clips)]
        else:
            clip = as_clip({} if clips is None else clips, "clip")
            described = [replace(clip, **given)]  # type: ignore[arg-type]
        sources = [clip.source(wanted, self.face_model) for clip in described]
        feed = streams is not None and "text" in wanted
        found: list[Embedding] = []
        with Decoder() as decoder:
            examples = _usable(sources, load_all(sources, decoder), wanted)
            while batch := list(islice(examples, CLIPS_AT_ONCE)):
                found += self._embed(batch, transcribe, feed, tensors, words=True)
        return found if isinstance(clips, list | tuple) else found[0]

    @torch.no_grad()
    def _embed(
        self,
        examples: Sequence[Example],
        transcribe: bool = False,
        feed: bool = False,
        tensors: bool = False,
        *,
        words: bool,
    ) -> list[Embedding]:
        """Embeddings of a batch, in its order; `feed`: transcripts become the text stream."""
        known = [normalise_transcript(e.utterance.transcript or "") or None for e in examples]
        origins: list[Origin | None] = ["given" if words else None for words in known]
        hidden = self._hidden(examples)
        heard: tuple[Tensor | None, ...] = (None,) * len(examples)
        if self.recogniser is not None and (transcribe or (words and any(known))):
            heard = self.recogniser(hidden.spoken).split()
        if transcribe and self.recogniser is not None:
            for row, (example, log_probs) in enumerate(zip(examples, heard, strict=True)):
                if known[row] is None and log_probs is not None and _perceived(example):
                    known[row], origins[row] = self.recogniser.transcribe(log_probs), "ctc"
            if feed:
                examples = [
                    replace(example, text=words or None) if origin == "ctc" else example
                    for example, words, origin in zip(examples, known, origins, strict=True)
                ]
                hidden = self._hidden(examples)
        encoding = self.encoder.pool(hidden).to("cpu")
        made = []
        for row, example in enumerate(examples):
            frames = encoding.frames.item(row).float().clone()  # bfloat16 under autocast
            times = (torch.arange(len(frames)) + 0.5) / FRAME_RATE
            seconds = example.notes.get("seconds")
            aligned = self._words(example, known[row], heard[row], frames)

            def array(tensor: Tensor) -> Array:
                return tensor if tensors else tensor.numpy()

            made.append(
                Embedding(
                    key=example.key,
                    streams=example.streams,
                    seconds=seconds if isinstance(seconds, float) else None,
                    pooled=array(encoding.pooled[row].clone()),
                    frames=array(frames),
                    times=array(times if _perceived(example) else times * torch.nan),
                    layers=array(encoding.layers[row].clone()),
                    layer_names=self.encoder.layer_names,
                    transcript=known[row],
                    transcript_from=origins[row],
                    aligned=aligned
                    if isinstance(aligned, str)
                    else tuple(word._replace(vector=array(word.vector)) for word in aligned),
                )
            )
        return made

    def _words(
        self, example: Example, transcript: str | None, log_probs: Tensor | None, frames: Tensor
    ) -> list[Word] | str:
        """The words of a clip with their times and vectors, or why there are none."""
        if not _perceived(example):
            return "no times of words: there are neither sound nor pictures"
        if self.recogniser is None:
            return f"no times of words: {_NO_RECOGNISER}"
        if transcript is None or log_probs is None:
            return "its words are not known: give text, or transcribe=True"
        try:
            spoken = self.recogniser.find_words(log_probs.cpu().numpy(), transcript)
        except ValueError as error:
            return f"no times of words: {error}"
        if not spoken:
            return []
        steps = [frames[word.frames.start : word.frames.stop] for word in spoken]
        lengths = torch.tensor([len(part) for part in steps])
        vectors = mean_and_std(Packed(torch.cat(steps), lengths))
        return [
            Word(word.text, word.start, word.end, vector)
            for word, vector in zip(spoken, vectors, strict=True)
        ]

    def _hidden(self, examples: Sequence[Example]) -> Hidden:
        items = [to_item(example, self.vocabulary) for example in examples]
        return self.encoder.encode(collate(items).to(self.device).inputs)


def _parse(streams: str | None) -> tuple[str, ...]:
    try:
        return STREAMS if streams is None else parse_subset(streams)
    except (ValueError, AttributeError):
        raise UsageError(
            f"streams {streams!r}: one or more of {', '.join(STREAMS)} with + between them"
        ) from None


def _perceived(example: Example) -> bool:
    """Whether there is something to hear or to see."""
    return bool({"audio", "video"} & set(example.streams))


def _usable(
    sources: Sequence[Source],
    loaded: Iterator[Example | DataError],
    streams: tuple[str, ...],
) -> Iterator[Example]:
    for source, example in zip(sources, loaded, strict=True):
        if isinstance(example, DataError):
            raise example
        held = replace(example, features={})  # vectors of others, which this encoder cannot read
        if not held.streams:
            raise DataError(source.name, "no_streams", f"has no {' or '.join(streams)}")
        yield held
