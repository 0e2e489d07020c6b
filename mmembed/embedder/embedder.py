"""From clips to vectors, by a frozen encoder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmembed import __version__
from mmembed.batch import Encoding, Packed, Padded
from mmembed.config import MAX_SECONDS, Hz, Seconds
from mmembed.data.example import Example, batches
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.media.pool import Decoder
from mmembed.embedder import hub
from mmembed.embedder.card import trained_on
from mmembed.embedder.clip import Described, as_clip, parse_streams, usable
from mmembed.embedder.embedding import Array, Embedding, Origin, Word
from mmembed.embedder.folder import HEAD, Saved, write_folder
from mmembed.embedder.recogniser import (
    NO_RECOGNISER,
    Recogniser,
    embed_words,
    find_words,
    has_times,
    readable,
)
from mmembed.embedder.sources import EncoderName, open_encoder
from mmembed.embedder.windows import Encoded, encode_long
from mmembed.encoder import EncoderOutput
from mmembed.errors import UsageError
from mmembed.features.text import normalise_transcript
from mmembed.features.video import check_face_model
from mmembed.io.versions import made_with
from mmembed.streams import STREAMS, subset_name


class Embedder:
    """A frozen encoder with its vocabulary and, in newer folders, its speech recogniser.

    Attributes:
        encoder: in evaluation mode, without gradients.
        subwords: of the text stream; None = the encoder reads no text.
        recogniser: of its folder, reads what the encoder says; None = the folder has none.
        listener: another embedder, whose recogniser finds words; None = this one's does.
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
        listener: Embedder | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.encoder, self.recogniser = saved.encoder, saved.recogniser
        for part in filter(None, (self.encoder, self.recogniser)):
            part.to(self.device).eval().requires_grad_(False)
        self.subwords, self.config, self.sha256 = saved.subwords, saved.config, saved.sha256
        self.face_model = face_model
        self.listener = listener

    @classmethod
    def from_pretrained(
        cls,
        name: EncoderName,
        device: torch.device | str = "cpu",
        *,
        revision: str | None = None,
        face_model: Path | str | None = None,
        recogniser: str | os.PathLike[str] | None = None,
    ) -> Embedder:
        """Load an encoder; without any network if it is on this machine.

        Args:
            name: a folder that mmembed wrote, a folder of a pretrained encoder as transformers
                writes it, or where there is none of this name, "OWNER/NAME" of either on the
                Hugging Face hub (needs the extra `hub`). Several pretrained encoders side by side
                are a mapping from stream to name, or "STREAM=NAME" strings: ["audio=A", "text=B"].
            device: where to compute; vectors come back to the CPU.
            revision: branch, tag or commit on the hub.
            face_model: YuNet's ONNX file, where the encoder's training data was prepared with it.
            recogniser: a folder that `mmembed pretrain` wrote, or its name on the hub: it writes
                transcripts and finds words in a clip's audio and video, instead of the encoder.

        Raises:
            CorruptError: a file is missing, damaged, or of another version.
            UsageError: there is no such folder, and nothing of this name to be had from the hub; or
                the folder named as recogniser has none.
        """
        if face_model is not None:
            check_face_model(Path(face_model))
        faces = None if face_model is None else Path(face_model)
        listener = None
        if recogniser is not None:
            listener = cls(open_encoder(recogniser), device)
            if listener.recogniser is None:
                raise UsageError(f"recogniser {os.fspath(recogniser)}: holds no {HEAD}")
        return cls(open_encoder(name, revision), device, face_model=faces, listener=listener)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an encoder folder with its model card; the same encoder gives the same bytes."""
        write_folder(Path(folder), self.encoder, self.subwords, self.recogniser, self.config)

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

    def streams(self, named: str | None = None) -> tuple[str, ...]:
        """Those of the named streams, or of all, that the encoder reads.

        Raises:
            UsageError: it reads none of them.
        """
        wanted = parse_streams(named)
        read = tuple(stream for stream in wanted if stream in self.encoder.reads)
        if not read or (named is not None and read != wanted):
            reads = " and ".join(self.encoder.reads)
            raise UsageError(f"streams {subset_name(wanted)}: the encoder reads {reads} alone")
        return read

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text stream, none where the encoder reads no text."""
        return [] if self.subwords is None else self.subwords.encode(text)

    @property
    def listening(self) -> Embedder | None:
        """The embedder whose recogniser is used: the listener, else this one, if it has any."""
        return self.listener or (self if self.recogniser is not None else None)

    @property
    def trained_on(self) -> str:
        """What the encoder was trained on, in one line; "not recorded" where nothing tells."""
        return trained_on(self.config)

    @property
    def description(self) -> dict[str, Any]:
        """What a reader of the vectors has to know of them."""
        return {
            "encoder_sha256": self.sha256,
            "version": __version__,
            "made_with": made_with(),
            "width": self.encoder.layer_width,
            "frame_rate": self.encoder.frame_rate,
            "layers": list(self.encoder.layer_names),
        }

    @torch.no_grad()
    def encode(self, examples: Sequence[Example]) -> Encoding:
        """Embed examples in one batch, each with at least one stream; the result is on the CPU.

        Long recordings are encoded by windows; `frames` is padded to the longest: give them alone.
        """
        encoded = self._encode(examples)
        return Encoding(
            frames=Padded.stack([each.frames for each in encoded]),
            pooled=torch.stack([each.pooled for each in encoded]),
            layers=torch.stack([each.layers for each in encoded]),
            streams=torch.tensor([[name in e.streams for name in STREAMS] for e in examples]),
            frame_rate=self.encoder.frame_rate,
        )

    def read(
        self,
        clips: Iterable[Described],
        streams: str | None = None,
        max_seconds: Seconds = MAX_SECONDS,
    ) -> Iterator[Example]:
        """Decode clips one after another; for arguments and errors see `__call__`."""
        wanted = self.streams(streams)
        described = [as_clip(clip, f"clip-{number}") for number, clip in enumerate(clips)]
        how = (wanted, self.face_model, max_seconds, self.encoder.crops)
        sources = [clip.source(*how) for clip in described]
        with Decoder() as decoder:
            yield from usable(sources, decoder.load(sources), wanted)

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
        max_seconds: Seconds = MAX_SECONDS,
    ) -> Embedding: ...

    @overload
    def __call__(
        self,
        clips: list[Described] | tuple[Described, ...],
        *,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
        max_seconds: Seconds = MAX_SECONDS,
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
        max_seconds: Seconds = MAX_SECONDS,
    ) -> Embedding | list[Embedding]:
        """Embed one clip or several; whatever else is in the list changes no vector.

        Files are opened in a process of their own, as `mmembed extract` does.

        Args:
            clips: the path of an audio or video file, or a dict with fields of
                `mmembed.embedder.clip.Clip`; or a list of those.
            audio: (samples,) mono in [-1, 1], of one clip in memory.
            sample_rate: of `audio`, Hz.
            video: (T, height, width) grey or (T, height, width, 3) RGB, uint8, at 25 Hz.
            text: the words spoken, beside a path as well.
            streams: those to use, such as "audio+video"; None = all that a clip has. Words that
                are known and not used are still found in the clip.
            transcribe: where words are not known, let the recogniser write them. They are used as
                the text stream only where `streams` names text.
            tensors: tensors instead of numpy arrays.
            max_seconds: the most that a file may last, by default four hours.

        Raises:
            DataError: a clip cannot be used.
            UsageError: the call contradicts itself, or the folder has no recogniser.
        """
        if transcribe and self.listening is None:
            raise UsageError(f"transcribe: {NO_RECOGNISER}")
        fields = {"audio": audio, "sample_rate": sample_rate, "video": video, "text": text}
        given = {field: value for field, value in fields.items() if value is not None}
        if isinstance(clips, list | tuple):
            if given:
                raise UsageError(f"{', '.join(given)}: of several clips, each has its own")
            described: Sequence[Described] = clips
        else:
            clip = as_clip({} if clips is None else clips, "clip")
            described = [vars(replace(clip, **given))]  # type: ignore[arg-type]
        feed = streams is not None and "text" in parse_streams(streams)
        embeddings: list[Embedding] = []
        for batch in batches(self.read(described, streams, max_seconds)):
            embeddings += self.embed(batch, transcribe=transcribe, feed=feed, tensors=tensors)
        return embeddings if isinstance(clips, list | tuple) else embeddings[0]

    @torch.no_grad()
    def embed(
        self,
        examples: Sequence[Example],
        *,
        words: bool = True,
        transcribe: bool = False,
        feed: bool = False,
        tensors: bool = False,
    ) -> list[Embedding]:
        """Embed examples in one batch, in their order, each with at least one stream.

        Args:
            examples: decoded clips.
            words: whether those that are known are to be found in the clips.
            transcribe: as in `__call__`; needs a recogniser.
            feed: such transcripts become the text stream.
            tensors: as in `__call__`.
        """
        known = [normalise_transcript(e.utterance.transcript or "") or None for e in examples]
        origins: list[Origin | None] = ["given" if text else None for text in known]
        sought = any(
            text and not e.utterance.words for text, e in zip(known, examples, strict=True)
        )
        listening = self.listening if transcribe or (words and sought) else None
        recogniser = self.recogniser if listening is self else None
        encoded = self._encode(examples, recogniser)
        other = listening if listening is not self else None
        heard = other.hear(examples) if other else [each.log_probs for each in encoded]
        if transcribe and listening is not None:
            assert listening.recogniser is not None
            timed: dict[int, Sequence[TimedWord]] = {}
            for row, (example, said) in enumerate(zip(examples, heard, strict=True)):
                if known[row] is None and said is not None and has_times(example, self.encoder):
                    known[row], origins[row] = listening.recogniser.transcribe(said), "ctc"
                    if feed and example.is_long:
                        with suppress(ValueError):  # it is spread
                            timed[row] = listening.recogniser.time_words(said, known[row] or "")
            if feed:
                examples = [
                    replace(example, text=text or None) if origin == "ctc" else example
                    for example, text, origin in zip(examples, known, origins, strict=True)
                ]
                encoded = self._encode(examples, recogniser, timed)
                heard = heard if other else [each.log_probs for each in encoded]

        def array(tensor: Tensor) -> Array:
            return tensor if tensors else tensor.numpy()

        embeddings, finder = [], None if self.listening is None else self.listening.recogniser
        rows = zip(examples, encoded, heard, known, origins, strict=True)
        for example, each, log_probs, transcript, origin in rows:
            timed_frames = has_times(example, self.encoder)
            times = (torch.arange(len(each.frames)) + 0.5) / self.encoder.frame_rate
            given = (words and example.utterance.words) or ()
            aligned: tuple[Word, ...] | str
            try:
                if not timed_frames:
                    raise ValueError("there are neither sound nor pictures")
                spoken = given or find_words(finder, transcript, log_probs)
                found = embed_words(spoken, each.frames, self.encoder.frame_rate)
                aligned = tuple(word._replace(vector=array(word.vector)) for word in found)
            except ValueError as error:
                aligned = f"no times of words: {error}"
            words_from: Origin = "given" if given else "ctc"
            embeddings.append(
                Embedding(
                    key=example.key,
                    streams=example.streams,
                    seconds=example.info.seconds,
                    pooled=array(each.pooled.clone()),
                    frames=array(each.frames),
                    times=array(times if timed_frames else times * torch.nan),
                    layers=array(each.layers),
                    layer_names=self.encoder.layer_names,
                    transcript=transcript,
                    transcript_from=origin,
                    words_from=None if isinstance(aligned, str) else words_from,
                    aligned=aligned,
                )
            )
        return embeddings

    def hidden(self, examples: Sequence[Example]) -> EncoderOutput:
        """The outputs of all layers for examples, each with at least one stream."""
        samples = self.encoder.reads_samples
        tensors = [example.tensors(self.subwords, samples=samples) for example in examples]
        packed = {s: Packed.concatenate([each[s] for each in tensors]) for s in STREAMS}
        return self.encoder.encode({s: steps.to(self.device) for s, steps in packed.items()})

    def hear(self, examples: Sequence[Example]) -> list[Tensor | None]:
        """(T, C) log-probabilities of this one's recogniser, 25 Hz; None where it reads nothing."""
        read = readable(examples, self.encoder)
        encoded = self._encode([*read.values()], self.recogniser)
        heard = {row: each.log_probs for row, each in zip(read, encoded, strict=True)}
        return [heard.get(row) for row in range(len(examples))]

    def _encode(
        self,
        examples: Sequence[Example],
        recogniser: Recogniser | None = None,
        timed: Mapping[int, Sequence[TimedWord]] | None = None,
    ) -> list[Encoded]:
        """Examples as one batch, each long one by windows, its words at times by row if known."""
        encoded: dict[int, Encoded] = {}
        how = self.encoder, self.hidden, self.subwords, recogniser
        for row, example in enumerate(examples):
            if example.is_long:
                words = (timed or {}).get(row, example.utterance.words or ())
                encoded[row] = encode_long(example, words, *how)
        if clips := [row for row in range(len(examples)) if row not in encoded]:
            hidden = self.hidden([examples[row] for row in clips])
            encoding = self.encoder.pool(hidden).to("cpu")
            heard: Sequence[Tensor | None] = [None] * len(clips)
            if recogniser is not None and hidden.audio_visual is not None:
                heard = recogniser(hidden.audio_visual).split()
            for n, row in enumerate(clips):
                frames, layers = encoding.frames.item(n).float().clone(), encoding.layers[n].clone()
                encoded[row] = Encoded(frames, encoding.pooled[n].clone(), layers, heard[n])
        return [encoded[row] for row in range(len(examples))]
