"""From clips to vectors, by a frozen encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmembed.batch import ClipInputs, Encoding, Packed, Padded
from mmembed.config import MAX_SECONDS, Hz, Seconds
from mmembed.data.example import Example, batches
from mmembed.data.item import EMPTY
from mmembed.data.manifest.timed_words import TimedWord
from mmembed.data.media.pool import Decoder
from mmembed.embedder.clip import Described, as_clip, parse_streams, usable
from mmembed.embedder.embedding import Array, Embedding, Origin, Word
from mmembed.embedder.frozen import FrozenEncoder
from mmembed.embedder.recogniser import (
    NO_RECOGNISER,
    Recogniser,
    embed_words,
    find_words,
    has_times,
    readable,
)
from mmembed.embedder.windows import Encoded, encode_long
from mmembed.encoder import EncoderOutput
from mmembed.errors import UsageError
from mmembed.features.audio import log_mel, to_float
from mmembed.features.text import normalise_transcript
from mmembed.streams import STREAMS


class Embedder(FrozenEncoder):
    """A frozen encoder as a function from clips to vectors; see `FrozenEncoder`.

    Files are opened in processes of their own. These start when they are first needed, stay for the
    next call, and end with the object or by `close`.
    """

    def __repr__(self) -> str:
        kind = self.encoder
        return (
            f"{type(self).__name__}({'+'.join(kind.reads)}: {len(kind.layer_names)} layers of "
            f"width {kind.layer_width}, {kind.frame_rate:g} frames a second; "
            f"{'with' if self.listening else 'no'} recogniser; on {self.device}; "
            f"sha256 {self.sha256[:12]})"
        )

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

    @cached_property
    def decoder(self) -> Decoder:
        """The processes in which clips are decoded: as many as a call needs, at most `workers`."""
        return Decoder(self.workers)

    def close(self) -> None:
        """End the decoding processes; another call starts new ones."""
        self.decoder.close()

    @property
    def listening(self) -> Embedder | None:
        """The one whose recogniser is used: the listener, else this one, if it has any."""
        return self.listener or (self if self.recogniser is not None else None)

    def read(
        self,
        clips: Iterable[Described],
        streams: str | None = None,
        max_seconds: Seconds = MAX_SECONDS,
    ) -> Iterator[Example]:
        """Decode clips, in their order; for arguments and errors see `__call__`."""
        wanted = self.streams(streams)
        described = [as_clip(clip, f"clip-{number}") for number, clip in enumerate(clips)]
        how = (wanted, self.face_model, max_seconds, self.encoder.crops)
        sources = [clip.source(*how) for clip in described]
        yield from usable(sources, self.decoder.load(sources), wanted)

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

        Files are opened in processes of their own, as `mmembed extract` does.

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
        inputs: ClipInputs | None = None,
    ) -> list[Embedding]:
        """Embed examples in one batch, in their order, each with at least one stream.

        Args:
            examples: decoded clips.
            words: whether those that are known are to be found in the clips.
            transcribe: as in `__call__`; needs a recogniser.
            feed: such transcripts become the text stream.
            tensors: as in `__call__`.
            inputs: what `pack` made of them.
        """
        known = [normalise_transcript(e.utterance.transcript or "") or None for e in examples]
        origins: list[Origin | None] = ["given" if text else None for text in known]
        sought = any(
            text and not e.utterance.words for text, e in zip(known, examples, strict=True)
        )
        listening = self.listening if transcribe or (words and sought) else None
        recogniser = self.recogniser if listening is self else None
        encoded = self._encode(examples, recogniser, inputs=inputs)
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

    def pack(self, examples: Sequence[Example]) -> ClipInputs | None:
        """Examples as tensors for `embed`; None where one is long and encoded by windows.

        They are on the CPU, in memory from which they get to a GPU while it computes.
        """
        if any(example.is_long for example in examples):
            return None
        inputs = self._tensors(examples)
        return inputs.pin_memory() if self.device.type == "cuda" else inputs

    def _tensors(self, examples: Sequence[Example]) -> ClipInputs:
        """Log-mel, or samples, face crops and tokens of examples, at least one."""
        packed: dict[str, list[Tensor]] = {s: [] for s in STREAMS}
        for example in examples:
            inputs = dict(EMPTY)
            samples = self.encoder.reads_samples
            if samples:
                inputs["audio"] = EMPTY["audio"][:, 0]
            if example.audio is not None and len(example.audio):
                inputs["audio"] = (to_float if samples else log_mel)(example.audio)
            if example.video is not None:
                inputs["video"] = torch.from_numpy(example.video)
            if example.text is not None and self.subwords is not None:
                text = example.written if self.subwords.as_written else example.text
                inputs["text"] = torch.tensor(self.subwords.encode(text or ""), dtype=torch.int64)
            for stream, values in inputs.items():
                packed[stream].append(values)
        return ClipInputs({s: Packed.concatenate(values) for s, values in packed.items()})

    def hidden(
        self, examples: Sequence[Example], inputs: ClipInputs | None = None
    ) -> EncoderOutput:
        """The outputs of all layers for examples of at most 300 s, each with at least one stream.

        Args:
            examples: decoded clips.
            inputs: their tensors, if they are there already.
        """
        if inputs is None:
            inputs = self._tensors(examples)
        return self.encoder.encode(inputs.to(self.device).streams, inputs.shared)

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
        inputs: ClipInputs | None = None,
    ) -> list[Encoded]:
        """Examples as one batch, each long one by windows, its words at times by row if known."""
        encoded: dict[int, Encoded] = {}
        how = self.encoder, self.hidden, self.subwords, recogniser
        for row, example in enumerate(examples):
            if example.is_long:
                words = (timed or {}).get(row, example.utterance.words or ())
                encoded[row] = encode_long(example, words, *how)
        if clips := [row for row in range(len(examples)) if row not in encoded]:
            hidden = self.hidden([examples[row] for row in clips], inputs)
            encoding = self.encoder.pool(hidden, None if inputs is None else inputs.shared).to(
                "cpu"
            )
            heard: Sequence[Tensor | None] = [None] * len(clips)
            if recogniser is not None and hidden.audio_visual is not None:
                heard = recogniser(hidden.audio_visual).split()
            for n, row in enumerate(clips):
                frames, layers = encoding.frames.item(n).float().clone(), encoding.layers[n].clone()
                encoded[row] = Encoded(frames, encoding.pooled[n].clone(), layers, heard[n])
        return [encoded[row] for row in range(len(examples))]
